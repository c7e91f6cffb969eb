//! Names of relation files (RelationPath and _mdfd_segpath, storage/smgr/md.c).

use ironpage_layout::{Fork, Oid};

/// What a file of a database's directory holds of a relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RelationFile {
    pub relation: Oid,
    pub fork: u8,
    /// Counts the files of 1 GiB a fork is made of, from 0.
    pub segment: u32,
}

impl RelationFile {
    /// `None` if the name is none of a relation's: also those of temporary relations, which a restart removes.
    pub fn parse(name: &str) -> Option<RelationFile> {
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, number(segment).filter(|segment| *segment > 0)?),
            None => (name, 0),
        };
        let (relation, suffix) = name.split_at(name.find('_').unwrap_or(name.len()));
        let fork = Fork::ALL.into_iter().find(|fork| fork.suffix() == suffix)?;
        Some(RelationFile { relation: number(relation)?, fork: fork as u8, segment })
    }
}

/// A number as Postgres writes it: digits, no zero in front.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_told_from_the_rest() {
        let file = |relation, fork: Fork, segment| Some(RelationFile { relation, fork: fork as u8, segment });
        assert_eq!(RelationFile::parse("1259"), file(1259, Fork::Main, 0));
        assert_eq!(RelationFile::parse("1259_vm"), file(1259, Fork::Vm, 0));
        assert_eq!(RelationFile::parse("1259_fsm"), file(1259, Fork::Fsm, 0));
        assert_eq!(RelationFile::parse("1259_init"), file(1259, Fork::Init, 0));
        assert_eq!(RelationFile::parse("4294967295.12"), file(u32::MAX, Fork::Main, 12));
        assert_eq!(RelationFile::parse("1259_vm.3"), file(1259, Fork::Vm, 3));
        let others = [
            "1259.0",
            "1259.01",
            "1259.",
            "1259.x",
            "1259_xy",
            "01259",
            "4294967296",
            "+1",
            "pg_internal.init",
            "PG_VERSION",
            "t3_16384",
            "",
        ];
        for other in others {
            assert_eq!(RelationFile::parse(other), None, "{other}");
        }
    }
}
