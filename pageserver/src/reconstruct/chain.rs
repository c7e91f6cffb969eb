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
