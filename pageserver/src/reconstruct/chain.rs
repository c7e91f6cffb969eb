//! The versions of a page, sorted into a base and the steps from it.

use super::ReconstructError;
use crate::store::Version;
use crate::worker::{Page, PageTag, RedoRecord};
use ironpage_layout::{BlockNumber, Fork, Key, KeyKind, Lsn, Value};

/// What the steps start from.
#[derive(PartialEq, Eq, Debug)]
pub enum Base {
    Image(Page),
    /// Zeros, or a first record that initialises the page.
    Zeros,
    /// A tombstone.
    Gone,
}

/// What changes the page.
#[derive(PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// WAL records that follow one another, for the redo worker.
    Redo(Vec<RedoRecord>),
    /// A delta of our own, and the end of the record it came from.
    Delta(Lsn, Value<'a>),
}

/// A page's versions in the order they are applied.
#[derive(PartialEq, Eq, Debug)]
pub struct Chain<'a> {
    pub base: Base,
    pub steps: Vec<Step<'a>>,
    /// Versions above the base.
    pub deltas: usize,
}

impl<'a> Chain<'a> {
    /// Sorts `versions`, newest first. A page without any base begins as zeros: so do pages of files
    /// that grew without WAL, and deltas that need more than zeros find out themselves.
    pub fn of(key: Key, versions: &'a [Version]) -> Result<Chain<'a>, ReconstructError> {
        let mut chain = Chain { base: Base::Zeros, steps: Vec::new(), deltas: 0 };
        for version in versions.iter().rev() {
            let corrupt = |why| ReconstructError::Corrupt { key, lsn: version.lsn, why };
            let value = Value::decode(&version.bytes).map_err(|error| ReconstructError::value(key, version.lsn, error))?;
            let base = match value {
                Value::Image(page) => {
                    let page = page.into_owned().into_boxed_slice();
                    Base::Image(page.try_into().map_err(|_| corrupt("an image is not 8192 bytes long"))?)
                }
                Value::ZeroPage => Base::Zeros,
                Value::Tombstone => Base::Gone,
                Value::Blob(_) => return Err(corrupt("a blob stands where a page should")),
                Value::Record { initialises, bytes } => {
                    if initialises {
                        chain = Chain { base: Base::Zeros, steps: Vec::new(), deltas: 0 };
                    }
                    let record = RedoRecord { end_lsn: version.lsn, bytes: bytes.into_owned() };
                    chain.deltas += 1;
                    match chain.steps.last_mut() {
                        Some(Step::Redo(run)) => run.push(record),
                        _ => chain.steps.push(Step::Redo(vec![record])),
                    }
                    continue;
                }
                delta => {
                    chain.deltas += 1;
                    chain.steps.push(Step::Delta(version.lsn, delta));
                    continue;
                }
            };
            chain = Chain { base, steps: Vec::new(), deltas: 0 };
        }
        Ok(chain)
    }
}

/// The page a key names; `None` for anything but a page of a relation.
pub fn page_tag(key: Key) -> Option<PageTag> {
    let fork = Fork::from_number(key.fork)?;
    (key.kind == KeyKind::Page).then_some(PageTag { rel: key.rel(), fork, block: BlockNumber(key.block) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironpage_layout::rel::PAGE_SIZE;
    use ironpage_layout::{RelTag, key::SlruKind};
    use std::borrow::Cow;

    const REL: RelTag = RelTag { tablespace: 1663, database: 5, relation: 16384 };

    /// Newest first, as the store gives them.
    fn versions(values: &[(u64, Value<'_>)]) -> Vec<Version> {
        let encoded = |(lsn, value): &(u64, Value<'_>)| {
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            Version { lsn: Lsn(*lsn), bytes }
        };
        values.iter().map(encoded).collect()
    }

    fn record(initialises: bool) -> Value<'static> {
        Value::Record { initialises, bytes: Cow::Borrowed(b"record") }
    }

    fn redo(lsns: &[u64]) -> Step<'static> {
        Step::Redo(lsns.iter().map(|lsn| RedoRecord { end_lsn: Lsn(*lsn), bytes: b"record".to_vec() }).collect())
    }

    #[test]
    fn records_in_a_row_are_one_batch_and_deltas_part_them() {
        let key = Key::page(REL, Fork::Vm, BlockNumber(0));
        let set = Value::VmSet { heap_block: 1, flags: 1 };
        let image = vec![7; PAGE_SIZE];
        let stored = versions(&[
            (50, record(false)),
            (40, set.clone()),
            (30, record(false)),
            (20, record(false)),
            (10, Value::Image(Cow::Borrowed(&image))),
        ]);
        let chain = Chain::of(key, &stored).unwrap();
        assert_eq!(chain.base, Base::Image(Box::new([7; PAGE_SIZE])));
        assert_eq!(chain.steps, [redo(&[20, 30]), Step::Delta(Lsn(40), set), redo(&[50])]);
        assert_eq!(chain.deltas, 4);
    }

    #[test]
    fn a_state_hides_what_is_older() {
        let key = Key::page(REL, Fork::Main, BlockNumber(0));
        let stored = versions(&[(30, record(false)), (20, record(true)), (10, record(false))]);
        let chain = Chain::of(key, &stored).unwrap();
        assert_eq!((chain.base, chain.steps, chain.deltas), (Base::Zeros, vec![redo(&[20, 30])], 2));
        let stored = versions(&[(30, Value::Tombstone), (20, Value::ZeroPage)]);
        let chain = Chain::of(Key::slru(SlruKind::Clog, 0), &stored).unwrap();
        assert_eq!((chain.base, chain.deltas), (Base::Gone, 0));
    }

    #[test]
    fn what_is_no_page_is_an_error() {
        let key = Key::page(REL, Fork::Main, BlockNumber(0));
        let blob = versions(&[(30, Value::Blob(Cow::Borrowed(b"size")))]);
        assert!(matches!(Chain::of(key, &blob), Err(ReconstructError::Corrupt { .. })));
        let damaged = [Version { lsn: Lsn(8), bytes: vec![99] }];
        assert!(matches!(Chain::of(key, &damaged), Err(ReconstructError::Value { .. })));
        assert_eq!(page_tag(Key::control()), None);
    }
}
