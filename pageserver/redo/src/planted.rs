//! Bugs to be found: with the feature `planted`, one kind of delta at a time writes a wrong value.
//!
//! Each kind's code passes one of the values it writes through [`value`]. Without the feature that is nothing.

use crate::delta::Kind;

#[cfg(feature = "planted")]
thread_local! {
    static WRONG: std::cell::Cell<Option<Kind>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread's deltas of `kind` write a wrong value; `None`: no delta does.
#[cfg(feature = "planted")]
pub fn plant(kind: Option<Kind>) {
    WRONG.set(kind);
}

/// What can be written wrong.
pub(crate) trait Spoil {
    #[cfg(feature = "planted")]
    fn spoilt(self) -> Self;
}

macro_rules! spoil {
    ($($type:ty),*) => {$(
        impl Spoil for $type {
            #[cfg(feature = "planted")]
            fn spoilt(self) -> Self {
                self ^ 1
            }
        }
    )*};
}
spoil!(u8, u16, u32, u64);

/// `value`, unless a bug is planted in this kind.
#[inline(always)]
pub(crate) fn value<T: Spoil>(kind: Kind, value: T) -> T {
    #[cfg(feature = "planted")]
    if WRONG.get() == Some(kind) {
        return value.spoilt();
    }
    let _ = kind;
    value
}
