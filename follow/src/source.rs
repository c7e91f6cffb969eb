//! The source, in the words of the replication protocol (Postgres documentation, chapter 55.4).

use crate::error::{Error, Result};
use crate::pq::{Connection, Copied, Message, Outcome};
use ironpage_layout::Lsn;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from 1970 to 2000, where Postgres's clock begins.
const POSTGRES_EPOCH: u64 = 946_684_800;

/// The only Postgres timeline we can follow: ours name their WAL so.
pub const TIMELINE: u32 = 1;

/// Who the source is, and where its WAL ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceIdentity {
    pub system_id: u64,
    pub timeline: u32,
    /// End of its flushed WAL.
    pub wal_end: Lsn,
}

/// A connection to the source.
pub struct Source {
    connection: Connection,
}

/// What the stream of WAL says next.
#[derive(Debug)]
pub enum Said {
    /// WAL; see [`WalMessage`].
    Wal(WalMessage),
    /// Nothing new up to here; whether it wants to hear from us at once.
    Keepalive { wal_end: Lsn, reply: bool },
    /// Nothing has come.
    Nothing,
    /// The stream ended; if the source's timeline did, which one followed.
    Ended { next_timeline: Option<String> },
}

/// A piece of WAL.
#[derive(Debug)]
pub struct WalMessage {
    pub begin: Lsn,
    /// End of the source's WAL when it sent this.
    pub wal_end: Lsn,
    message: Message,
}

/// 'w', three numbers.
const WAL_HEADER: usize = 25;

impl WalMessage {
    pub fn bytes(&self) -> &[u8] {
        self.message.get(WAL_HEADER..).unwrap_or_default()
    }
}

impl Source {
    /// Connects, and refuses what is no PostgreSQL 15 of our sizes.
    pub fn connect(conninfo: &str) -> Result<Source> {
        let mut source = Source { connection: Connection::replication(conninfo)? };
        let version = source.version();
        if version / 10_000 != 15 {
            return Err(Error::Refused(format!(
                "the source is PostgreSQL {}: only 15 can be followed; upgrade it, or follow a server of that version",
                version / 10_000
            )));
        }
        let segment_size = source.show("wal_segment_size")?;
        if segment_size != "16MB" {
            return Err(Error::Refused(format!(
                "the source has WAL segments of {segment_size}; only 16MB is supported (initdb --wal-segsize)"
            )));
        }
        Ok(source)
    }

    /// PG_VERSION_NUM.
    pub fn version(&self) -> u32 {
        self.connection.server_version()
    }

    pub fn show(&mut self, setting: &str) -> Result<String> {
        let rows = self.connection.rows(&format!("SHOW {setting}"))?;
        let value = rows.into_iter().flatten().next().flatten();
        value.ok_or_else(|| Error::Source(format!("SHOW {setting} said nothing")))
    }

    pub fn identify(&mut self) -> Result<SourceIdentity> {
        let rows = self.connection.rows("IDENTIFY_SYSTEM")?;
        let field = |column: usize| rows.first().and_then(|row| row.get(column)?.as_deref());
        let parsed = || {
            Some(SourceIdentity {
                system_id: field(0)?.parse().ok()?,
                timeline: field(1)?.parse().ok()?,
                wal_end: field(2)?.parse().ok()?,
            })
        };
        parsed().ok_or_else(|| Error::Source(format!("IDENTIFY_SYSTEM said {rows:?}")))
    }

    /// From where on a physical slot keeps WAL: `None` if there is no such slot, `Some(None)` if it keeps none.
    pub fn slot(&mut self, name: &str) -> Result<Option<Option<Lsn>>> {
        let rows = self.connection.rows(&format!("READ_REPLICATION_SLOT {}", quoted(name)))?;
        let row = rows.first().map(Vec::as_slice).unwrap_or_default();
        match row.first().and_then(Option::as_deref) {
            None => Ok(None),
            Some("physical") => Ok(Some(row.get(1).and_then(|lsn| lsn.as_ref()?.parse().ok()))),
            Some(kind) => Err(Error::Refused(format!("slot {name} of the source is a {kind} one: choose another name (--slot)"))),
        }
    }

    /// Makes a physical slot that keeps WAL from now on.
    pub fn create_slot(&mut self, name: &str) -> Result<()> {
        self.connection.rows(&format!("CREATE_REPLICATION_SLOT {} PHYSICAL (RESERVE_WAL)", quoted(name))).map(drop)
    }

    pub fn drop_slot(&mut self, name: &str) -> Result<()> {
        self.connection.rows(&format!("DROP_REPLICATION_SLOT {} WAIT", quoted(name))).map(drop)
    }

    /// Starts a base backup: where its redo begins, and the tablespaces besides the default ones.
    pub fn base_backup(&mut self) -> Result<(Lsn, Vec<u32>)> {
        self.connection.send("BASE_BACKUP (LABEL 'ironpage follow', CHECKPOINT 'fast', WAIT 0, MANIFEST 'no')")?;
        let (lsn, timeline) = self.position()?;
        if timeline != TIMELINE {
            return Err(other_timeline(timeline));
        }
        let Some(Outcome::Rows(tablespaces)) = self.connection.result()? else {
            return Err(Error::Backup("the source did not name its tablespaces".into()));
        };
        let oids = tablespaces.iter().filter_map(|row| row.first()?.as_ref()?.parse().ok()).collect();
        match self.connection.result()? {
            Some(Outcome::CopyOut) => Ok((lsn, oids)),
            other => Err(Error::Backup(format!("{other:?} where its files were due"))),
        }
    }

    /// The next message of the base backup under way; `None` at its end.
    pub fn backup_message(&mut self) -> Result<Option<Message>> {
        match self.connection.copied()? {
            Copied::Data(message) => Ok(Some(message)),
            Copied::End => Ok(None),
            Copied::Nothing => Err(Error::Backup("the source sent nothing".into())),
        }
    }

    /// What follows the files: the end of the backup.
    pub fn backup_end(&mut self) -> Result<Lsn> {
        let (lsn, _) = self.position()?;
        while self.connection.result()?.is_some() {}
        Ok(lsn)
    }

    fn position(&mut self) -> Result<(Lsn, u32)> {
        let rows = match self.connection.result()? {
            Some(Outcome::Rows(rows)) => rows,
            other => return Err(Error::Backup(format!("{other:?} where a WAL position was due"))),
        };
        let field = |column: usize| rows.first().and_then(|row| row.get(column)?.as_deref());
        let parsed = || Some((field(0)?.parse().ok()?, field(1)?.parse().ok()?));
        parsed().ok_or_else(|| Error::Backup(format!("{rows:?} is no WAL position")))
    }

    /// Starts the stream of WAL at `from`.
    pub fn start_replication(&mut self, slot: &str, from: Lsn) -> Result<()> {
        self.connection.send(&format!("START_REPLICATION SLOT {} PHYSICAL {from} TIMELINE {TIMELINE}", quoted(slot)))?;
        match self.connection.result()? {
            Some(Outcome::CopyBoth) => Ok(()),
            other => Err(Error::Source(format!("{other:?} where a stream of WAL was due"))),
        }
    }

    /// The next message of the stream, waiting up to `limit` for it, or until `wake` is readable.
    pub fn next(&mut self, wake: RawFd, limit: Duration) -> Result<Said> {
        let mut copied = self.connection.copied_now()?;
        if matches!(copied, Copied::Nothing) {
            self.connection.wait(wake, limit)?;
            copied = self.connection.copied_now()?;
        }
        let message = match copied {
            Copied::Data(message) => message,
            Copied::Nothing => return Ok(Said::Nothing),
            Copied::End => return self.ended(),
        };
        let number = |at: usize| Some(u64::from_be_bytes(*message.get(at..)?.first_chunk::<8>()?));
        let parsed = match message.first() {
            Some(b'w') if message.len() >= WAL_HEADER => {
                number(1).zip(number(9)).map(|(begin, wal_end)| (Some(Lsn(begin)), Lsn(wal_end), false))
            }
            Some(b'k') => number(1).zip(message.get(17)).map(|(wal_end, reply)| (None, Lsn(wal_end), *reply == 1)),
            _ => None,
        };
        match parsed {
            Some((Some(begin), wal_end, _)) => Ok(Said::Wal(WalMessage { begin, wal_end, message })),
            Some((None, wal_end, reply)) => Ok(Said::Keepalive { wal_end, reply }),
            None => Err(Error::Source(format!("a message of {} bytes that no walsender sends", message.len()))),
        }
    }

    /// The source ended the stream: because it shuts down, or because its timeline is over.
    fn ended(&mut self) -> Result<Said> {
        // Where a timeline ends, the source waits for our end of the copy.
        let _ = self.connection.put_end();
        let mut next_timeline = None;
        while let Some(outcome) = self.connection.result()? {
            if let Outcome::Rows(rows) = outcome {
                next_timeline = rows.into_iter().flatten().next().flatten();
            }
        }
        Ok(Said::Ended { next_timeline })
    }

    /// Tells the source that all before `lsn` is safe with us: its slot need not keep it.
    pub fn confirm(&mut self, lsn: Lsn) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = (now.as_micros() as u64).saturating_sub(POSTGRES_EPOCH * 1_000_000);
        let mut message = vec![b'r'];
        for number in [lsn.0, lsn.0, lsn.0, micros] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.push(0);
        self.connection.put(&message)
    }
}

pub fn other_timeline(timeline: u32) -> Error {
    Error::Refused(format!(
        "the source is on Postgres timeline {timeline}; only {TIMELINE} can be followed. A promotion or a restore to a point in \
         time makes a new one, and what came before it is not what was received here. Branches of what was received stay usable. \
         Follow the server that is still on timeline {TIMELINE}, or bring this one to it: pg_dumpall into a new cluster, or \
         pg_upgrade, both of which begin at 1"
    ))
}

/// An identifier of the replication grammar.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        assert_eq!(super::quoted("a\" DROP"), "\"a\"\" DROP\"");
    }
}
