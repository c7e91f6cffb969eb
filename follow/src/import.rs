//! The source's base backup into a new timeline, at the pageserver and then at the safekeepers.

use crate::backup;
use crate::client::{Client, Identity, Peer};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::info;
use crate::progress::Progress;
use crate::source::{Said, Source};
use ironpage_layout::postgres::control::{CheckPoint, ControlFile, state};
use ironpage_layout::postgres::rmgr::{Rmgr, xlog};
use ironpage_layout::postgres::wal::{DecodedRecord, Next, Verify, WalStream};
use ironpage_layout::wire::admin::{ImportEnd, TimelineCreate, TimelinePrefix};
use ironpage_layout::wire::basebackup::Item;
use ironpage_layout::wire::hello::Role;
use ironpage_layout::wire::{Kind, MAX_WAL_CHUNK};
use ironpage_layout::{Lsn, TimelineId};
use std::time::{Duration, Instant};
use zerocopy::little_endian::{I32, U32, U64};

/// How long a daemon may take for one step of an import: its flush is one.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long the source may take to send WAL that it has.
const WAL_PATIENCE: Duration = Duration::from_secs(60);
/// How often the progress file is written while files come.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// TimelineCreate.kind of a branch that follows another server.
const KIND_FOLLOW: u32 = 3;

/// Where a base backup begins, found in the WAL itself.
#[derive(Clone, Debug)]
struct Beginning {
    start_lsn: Lsn,
    prev_record_lsn: Lsn,
    /// Where the checkpoint's record begins, and what it says.
    checkpoint_at: Lsn,
    checkpoint: CheckPoint,
}

/// A timeline that was imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Imported {
    pub start_lsn: Lsn,
    pub prev_record_lsn: Lsn,
    pub readable_lsn: Lsn,
}

/// Takes a base backup into `timeline` of the pageserver. `before_end` runs before the import can become durable.
pub fn import(
    config: &Config,
    timeline: TimelineId,
    system_id: u64,
    progress: &mut Progress,
    before_end: &mut dyn FnMut(Imported) -> Result<()>,
) -> Result<Imported> {
    let mut source = Source::connect(&config.settings.source)?;
    let postgres_version = source.version();
    let (redo, tablespaces) = source.base_backup()?;
    let beginning = beginning(config, redo, system_id)?;
    info(&format!("base backup: redo at {redo}, checkpoint at {}", beginning.checkpoint_at));

    let identity = Identity { tenant: config.tenant, timeline, system_id, postgres_version };
    let create = TimelineCreate {
        tenant: config.tenant,
        timeline,
        start_lsn: beginning.start_lsn,
        prev_record_lsn: beginning.prev_record_lsn,
        system_id,
        postgres_version,
        name: config.settings.branch.clone(),
        readable_lsn: Lsn::INVALID,
        kind: KIND_FOLLOW,
        prefix_length: 0,
    };
    let mut client = Client::connect(&config.pageserver, Role::Admin, identity, TIMEOUT)?;
    client.send(Kind::TimelineCreate, |out| create.encode(out))?;
    let mut items = 0u64;
    let mut told = Instant::now();
    let mut send = |item: &Item<'_>| {
        items += 1;
        if let Item::RelPages { pages, .. } = item {
            progress.backup_bytes += pages.len() as u64;
        }
        if told.elapsed() > PROGRESS_EVERY {
            told = Instant::now();
            progress.write(&config.dir)?;
        }
        client.send(Kind::ImportItem, |out| item.encode(out))
    };
    for oid in tablespaces {
        send(&Item::Tablespace(oid))?;
    }
    let control = backup::read(&mut source, &mut send)?;
    send(&Item::Control(&as_of_checkpoint(&control, &beginning).to_bytes()))?;
    let readable_lsn = source.backup_end()?.to_record_end();

    let imported = Imported { start_lsn: beginning.start_lsn, prev_record_lsn: beginning.prev_record_lsn, readable_lsn };
    before_end(imported)?;
    let end = ImportEnd { items: U64::new(items), readable_lsn: U64::new(readable_lsn.0) };
    client.send(Kind::ImportEnd, |out| end.encode(out))?;
    client.expect(Kind::TimelineCreated, "TimelineCreated")?;
    Ok(imported)
}

/// The backup's pg_control may be of a later checkpoint: redo begins with what was true at the backup's.
fn as_of_checkpoint(control: &ControlFile, beginning: &Beginning) -> ControlFile {
    let mut control = *control;
    control.state = I32::new(state::SHUTDOWNED);
    control.checkpoint = U64::new(beginning.checkpoint_at.0);
    control.checkpoint_copy = beginning.checkpoint;
    control.time = beginning.checkpoint.time;
    control.min_recovery_point = U64::ZERO;
    control.min_recovery_point_timeline = U32::ZERO;
    control.backup_start_point = U64::ZERO;
    control.backup_end_point = U64::ZERO;
    control.backup_end_required = 0;
    control
}

/// The record at `redo` and the checkpoint that names it, from the source's WAL.
fn beginning(config: &Config, redo: Lsn, system_id: u64) -> Result<Beginning> {
    let start_lsn = redo.to_record_end();
    let mut stream = WalStream::new(start_lsn, Verify::Crc).with_system_id(system_id);
    let mut prev_record_lsn = None;
    let mut found = None;
    let from = start_lsn.segment_start();
    read_wal(config, from, &mut |begin, bytes| {
        // What lies before the start of the stream was asked for only because streams begin at segments.
        let skip = stream.position().since(begin) as usize;
        let Some(new) = bytes.get(skip..).filter(|new| !new.is_empty()) else { return Ok(false) };
        let at = stream.position();
        let broken = |error: ironpage_layout::postgres::wal::WalError| Error::Wal { at, why: error.to_string() };
        stream.feed(at, new).map_err(broken)?;
        while let Next::Record(record) = stream.next_record().map_err(broken)? {
            let decoded = DecodedRecord::decode(record.bytes)
                .map_err(|error| Error::Wal { at: record.start, why: format!("not a record: {error}") })?;
            prev_record_lsn.get_or_insert(decoded.prev);
            let is_checkpoint = decoded.rmgr() == Some(Rmgr::Xlog)
                && matches!(decoded.rmgr_info(), xlog::CHECKPOINT_ONLINE | xlog::CHECKPOINT_SHUTDOWN);
            let checkpoint = is_checkpoint.then(|| CheckPoint::read(decoded.main_data)).flatten();
            if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.redo.get() == redo.0) {
                found = Some((record.start, checkpoint));
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    match (prev_record_lsn, found) {
        (Some(prev_record_lsn), Some((checkpoint_at, checkpoint))) => {
            Ok(Beginning { start_lsn, prev_record_lsn, checkpoint_at, checkpoint })
        }
        _ => Err(Error::Wal { at: redo, why: "the backup's checkpoint is not in the source's WAL".into() }),
    }
}

/// The source's WAL from `from` on, on a connection of its own, until `take` has enough.
fn read_wal(config: &Config, from: Lsn, take: &mut dyn FnMut(Lsn, &[u8]) -> Result<bool>) -> Result<()> {
    let mut source = Source::connect(&config.settings.source)?;
    source.start_replication(&config.settings.slot, from)?;
    let mut heard = Instant::now();
    loop {
        match source.next(-1, Duration::from_secs(1))? {
            Said::Wal(wal) => {
                heard = Instant::now();
                if take(wal.begin, wal.bytes())? {
                    return Ok(());
                }
            }
            Said::Ended { .. } => return Err(Error::Source("it ended the stream of WAL".into())),
            Said::Keepalive { .. } | Said::Nothing => {}
        }
        if heard.elapsed() > WAL_PATIENCE {
            return Err(Error::Source(format!("no WAL from {from} on came for {} s", WAL_PATIENCE.as_secs())));
        }
    }
}

/// The WAL from the start of `until`'s segment to `until`. The slot keeps it until it is first confirmed.
pub fn prefix(config: &Config, until: Lsn) -> Result<Vec<u8>> {
    let from = until.segment_start();
    let wanted = until.since(from) as usize;
    let mut prefix = Vec::with_capacity(wanted);
    if wanted == 0 {
        return Ok(prefix);
    }
    read_wal(config, from, &mut |begin, bytes| {
        if begin.since(from) as usize != prefix.len() {
            return Err(Error::Wal { at: begin, why: "the source's stream has a gap".into() });
        }
        prefix.extend_from_slice(bytes.get(..(wanted - prefix.len()).min(bytes.len())).unwrap_or_default());
        Ok(prefix.len() == wanted)
    })?;
    Ok(prefix)
}

/// Makes the timeline at one safekeeper. Safe to repeat. The safekeeper's number.
pub fn create_at(config: &Config, peer: &Peer, identity: Identity, start: Imported, prefix: &[u8]) -> Result<u64> {
    let create = TimelineCreate {
        tenant: identity.tenant,
        timeline: identity.timeline,
        start_lsn: start.start_lsn,
        prev_record_lsn: start.prev_record_lsn,
        system_id: identity.system_id,
        postgres_version: identity.postgres_version,
        name: config.settings.branch.clone(),
        readable_lsn: Lsn::INVALID,
        kind: KIND_FOLLOW,
        prefix_length: prefix.len() as u32,
    };
    let mut client = Client::connect(peer, Role::Admin, identity, TIMEOUT)?;
    client.send(Kind::TimelineCreate, |out| create.encode(out))?;
    let mut begin = start.start_lsn.0 - prefix.len() as u64;
    for chunk in prefix.chunks(MAX_WAL_CHUNK) {
        client.send(Kind::TimelinePrefix, |out| {
            TimelinePrefix { begin_lsn: U64::new(begin) }.encode(out);
            out.extend_from_slice(chunk);
        })?;
        begin += chunk.len() as u64;
    }
    client.expect(Kind::TimelineCreated, "TimelineCreated")?;
    Ok(client.node.0)
}
