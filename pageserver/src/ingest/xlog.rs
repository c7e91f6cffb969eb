//! Records of the WAL machinery itself: checkpoints, settings, page images (xlog_redo, access/transam/xlog.c).

use super::control::apply_online_checkpoint;
use super::record::Step;
use super::{IngestError, Sink};
use ironpage_layout::postgres::control::CheckPoint;
use ironpage_layout::postgres::rmgr::xlog;
use zerocopy::little_endian::{I32, U32, U64};

/// The only Postgres timeline there is: branches are ours.
const TIMELINE: u32 = 1;

impl<S: Sink> Step<'_, S> {
    pub fn xlog(&mut self, info: u8) -> Result<(), IngestError> {
        if !matches!(info, xlog::FPI | xlog::FPI_FOR_HINT) && !self.record.blocks.is_empty() {
            return Err(self.malformed("records of its kind change no pages, this one does"));
        }
        match info {
            xlog::CHECKPOINT_SHUTDOWN | xlog::CHECKPOINT_ONLINE => self.checkpoint(info),
            xlog::NEXTOID => {
                let oid = self.main_data().u32().ok_or_else(|| self.short())?;
                self.control()?.checkpoint_copy.next_oid = U32::new(oid);
                Ok(())
            }
            xlog::PARAMETER_CHANGE => self.parameter_change(),
            xlog::FPW_CHANGE => {
                let on = self.main_data().u8().ok_or_else(|| self.short())?;
                self.control()?.checkpoint_copy.full_page_writes = u8::from(on != 0);
                Ok(())
            }
            xlog::END_OF_RECOVERY => {
                let mut data = self.main_data();
                let timeline = data.take(8).and_then(|_| data.u32()).ok_or_else(|| self.short())?;
                self.check_timeline(timeline)
            }
            xlog::FPI | xlog::FPI_FOR_HINT => self.full_page_images(info),
            xlog::NOOP | xlog::SWITCH | xlog::BACKUP_END | xlog::RESTORE_POINT => Ok(()),
            // The stream has skipped the record it voids.
            xlog::OVERWRITE_CONTRECORD => Ok(()),
            _ => Err(self.unknown()),
        }
    }

    fn check_timeline(&self, timeline: u32) -> Result<(), IngestError> {
        if timeline == TIMELINE { Ok(()) } else { Err(IngestError::Timeline { lsn: self.start, timeline }) }
    }

    fn checkpoint(&mut self, info: u8) -> Result<(), IngestError> {
        let checkpoint =
            CheckPoint::read(self.record.main_data).ok_or_else(|| self.malformed("a checkpoint is not 88 bytes long"))?;
        self.check_timeline(checkpoint.timeline.get())?;
        let start = self.start;
        let control = self.control()?;
        if info == xlog::CHECKPOINT_SHUTDOWN {
            // Nothing else runs: its counters are exact.
            control.checkpoint_copy = checkpoint;
        } else {
            apply_online_checkpoint(control, &checkpoint);
        }
        control.checkpoint = U64::new(start.0);
        control.time = checkpoint.time;
        Ok(())
    }

    fn parameter_change(&mut self) -> Result<(), IngestError> {
        let mut data = self.main_data();
        let mut numbers = || Some([data.i32()?, data.i32()?, data.i32()?, data.i32()?, data.i32()?, data.i32()?]);
        let [connections, workers, senders, prepared, locks, wal_level] = numbers().ok_or_else(|| self.short())?.map(I32::new);
        let mut flags = || Some((data.u8()?, data.u8()?));
        let (wal_log_hints, track_commit_timestamp) = flags().ok_or_else(|| self.short())?;
        let control = self.control()?;
        control.max_connections = connections;
        control.max_worker_processes = workers;
        control.max_wal_senders = senders;
        control.max_prepared_xacts = prepared;
        control.max_locks_per_xact = locks;
        control.wal_level = wal_level;
        control.wal_log_hints = u8::from(wal_log_hints != 0);
        self.track_commit_timestamps(track_commit_timestamp != 0)
    }

    /// A hint's record may come without an image, when full_page_writes is off; then it changes nothing.
    fn full_page_images(&mut self, info: u8) -> Result<(), IngestError> {
        let record = self.record;
        for block in &record.blocks {
            if block.image.is_none() && info == xlog::FPI_FOR_HINT {
                continue;
            }
            if block.applied_image().is_none() {
                return Err(self.malformed("it lacks the page image that is all of it"));
            }
            self.page(block)?;
        }
        Ok(())
    }
}
