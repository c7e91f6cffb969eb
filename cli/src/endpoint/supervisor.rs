//! Keeps one Postgres running: `ironpage endpoint supervise NAME`, started by `endpoint start`, one per endpoint.
//!
//! Each round: win a term, take a base backup into a fresh data directory, start Postgres, wait for its end. A crash
//! begins the next round at once, unless another endpoint took over the branch: then this one stays down.

use super::basebackup;
use super::control;
use super::creation;
use super::launcher::{self, Record, Rule, Won};
use super::lease::{self, Renewal};
use super::paths::{DataDir, Paths};
use super::postgres;
use super::readonly;
use super::shared_memory::SharedMemory;
use super::state::{self, Phase, State};
use super::ticket::{Mode, Ticket};
use super::vigil::Vigil;
use super::wal;
use crate::api::ApiCode;
use crate::client::Peer;
use crate::cluster::{Cluster, Endpoint, Point};
use crate::error::{AtPath, Error, Result};
use crate::files;
use crate::log;
use crate::place::Place;
use crate::port;
use crate::process::Process;
use crate::programs::Programs;
use crate::sys::{PidFd, Signals, Woken};
use crate::user::Owner;
use ironpage_layout::TimelineId;
use ironpage_layout::wire::ErrorCode;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Starts that may fail in a row before the endpoint is given up.
const FAILED_STARTS_MAX: u32 = 3;
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the end of Postgres may take when nobody is left to ask for it.
const LEFTOVER_STOP: Duration = Duration::from_secs(10);
/// How often ALTER SYSTEM's file is looked at while Postgres runs.
const KEEP_CONF_EVERY: Duration = Duration::from_millis(500);

/// Runs the endpoint until it is stopped, fenced, or cannot start.
pub fn supervise(dir: &std::path::Path, name: &str) -> Result<()> {
    let cluster = Cluster::open(dir)?;
    let endpoint = cluster.endpoint(name)?.clone();
    let paths = Paths::of(&cluster, &endpoint);
    let Some(_lock) = state::hold(&paths)? else {
        return Err(Error::Refused(format!("endpoint '{name}' has a supervisor already")));
    };
    let signals = Signals::catch(&[libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP])
        .map_err(|error| Error::Refused(format!("cannot catch signals: {error}")))?;
    let previous = State::read(&paths)?;
    let us = Process::of(std::process::id() as i32).ok_or_else(|| Error::Refused("/proc does not list this process".into()))?;
    let state =
        State { phase: Phase::Starting, supervisor: us, postmaster: None, term: 0, data_dir: None, message: String::new() };
    let mut supervisor = Supervisor {
        owner: Owner::of_postgres()?,
        programs: Programs::find()?,
        cluster,
        endpoint,
        paths,
        signals,
        state,
        timeline: None,
        record: Record::default(),
    };
    supervisor.say(Phase::Starting, "");
    if let Some(postmaster) = previous.and_then(|previous| previous.postmaster).filter(Process::is_alive) {
        log::line(
            "WARN",
            &format!("a postmaster of a supervisor that was killed is still there (pid {}): stopping it", postmaster.pid),
        );
        if !postmaster.end(libc::SIGINT, LEFTOVER_STOP) {
            postmaster.end(libc::SIGQUIT, LEFTOVER_STOP);
        }
    }
    let outcome = supervisor.run();
    supervisor.release_lease();
    match &outcome {
        Ok(()) => supervisor.say(Phase::Stopped, "stopped"),
        Err(Error::Interrupted) => supervisor.say(Phase::Stopped, "stopped while it started"),
        Err(Error::Fenced(why)) => {
            let message = format!("{why}; `ironpage endpoint start {name}` takes the branch back");
            log::line("ERROR", &format!("fenced: {message}"));
            supervisor.say(Phase::Fenced, &message);
        }
        Err(error) => {
            log::line("ERROR", &error.to_string());
            supervisor.say(Phase::Failed, &error.to_string());
        }
    }
    match outcome {
        Err(Error::Interrupted) => Ok(()),
        outcome => outcome,
    }
}

/// How a round ended.
enum End {
    Stopped,
    Crashed { was_ready: bool, how: String },
}

struct Supervisor {
    cluster: Cluster,
    endpoint: Endpoint,
    paths: Paths,
    programs: Programs,
    owner: Owner,
    signals: Signals,
    state: State,
    /// Of the last round as a primary, and what was done in its elections.
    timeline: Option<TimelineId>,
    record: Record,
}

impl Supervisor {
    fn run(&mut self) -> Result<()> {
        let mut rule = Rule::TakeOver;
        let mut failed_starts = 0;
        loop {
            match self.round(rule)? {
                End::Stopped => return Ok(()),
                End::Crashed { was_ready, how } => {
                    failed_starts = if was_ready { 0 } else { failed_starts + 1 };
                    if failed_starts == FAILED_STARTS_MAX {
                        return Err(Error::Endpoint(format!(
                            "postgres {how} {failed_starts} times in a row before it was ready"
                        )));
                    }
                    log::line("WARN", &format!("postgres {how}; starting it again"));
                }
            }
            rule = Rule::StayFenced;
            self.say(Phase::Starting, "restarting after a crash");
            self.pause(failed_starts)?;
        }
    }

    fn round(&mut self, rule: Rule) -> Result<End> {
        match self.endpoint.at {
            Some(point) => self.read_only_round(point),
            None => self.primary_round(rule),
        }
    }

    fn read_only_round(&mut self, point: Point) -> Result<End> {
        let began = Instant::now();
        let place = self.lease(point)?;
        let renewal = Renewal::start(&self.cluster, &self.endpoint.tenant, &place.branch);
        let data_dir = self.paths.read_only_data_dir(&self.owner);
        self.remove_other_data_dirs(&data_dir);
        let mut attempts = 0;
        let prepared = loop {
            match readonly::prepare(&self.cluster, &self.paths, &self.programs, &place, &data_dir) {
                Err(error) => self.wait_out(&error, &mut attempts)?,
                Ok(prepared) => break prepared,
            }
        };
        self.state.data_dir = Some(data_dir.path.clone());
        let backed_up = began.elapsed();
        port::check_free(self.cluster.endpoint_address(&self.endpoint).port(), &format!("endpoint '{}'", self.endpoint.name))?;
        let (cluster, endpoint, programs) = (&self.cluster, &self.endpoint, &self.programs);
        let child = postgres::start(cluster, endpoint, &self.paths, programs, &data_dir, prepared.settings)?;
        let is_ready = |ready: Instant| {
            let (lsn, all, first) = (point.lsn, (ready - began).as_millis(), backed_up.as_millis());
            log::line(
                "INFO",
                &format!("ready after {all} ms, read-only at {lsn}: base backup {first}, postgres {}", all - first),
            );
        };
        self.watch(child, &data_dir, is_ready, || renewal.is_gone().then_some("its snapshot is gone"))
    }

    /// The snapshot this endpoint reads.
    fn lease(&mut self, point: Point) -> Result<Place> {
        let mut attempts = 0;
        loop {
            let found = lease::obtain(&self.cluster, &self.endpoint, point)
                .and_then(|snapshot| Place::find(&self.cluster, &self.endpoint.tenant, &snapshot.name));
            match found {
                Err(error) if error.may_pass() => self.wait_out(&error, &mut attempts)?,
                done => return done,
            }
        }
    }

    /// Gives the snapshot back; what cannot be done now, time does.
    fn release_lease(&self) {
        if self.endpoint.at.is_none() {
            return;
        }
        if let Err(error) = lease::release(&self.cluster, &self.endpoint) {
            log::line("WARN", &format!("the snapshot is left to go away by itself: {error}"));
        }
    }

    fn primary_round(&mut self, rule: Rule) -> Result<End> {
        let began = Instant::now();
        let place = self.find_branch()?;
        if self.timeline.replace(place.branch.id) != Some(place.branch.id) {
            // Terms of one timeline say nothing about those of another.
            self.record = Record::default();
        }
        let (won, members) = self.elect(&place, rule)?;
        let elected = began.elapsed();
        log::line("INFO", &format!("won term {} of branch '{}': WAL ends at {}", won.term, place.branch.name, won.start_lsn));
        self.state.term = won.term.0;
        let data_dir = self.paths.data_dir(won.term, &self.owner);
        self.remove_other_data_dirs(&data_dir);
        self.fill_data_dir(&place, &won, &members, &data_dir)?;
        self.state.data_dir = Some(data_dir.path.clone());
        let backed_up = began.elapsed();
        port::check_free(self.cluster.endpoint_address(&self.endpoint).port(), &format!("endpoint '{}'", self.endpoint.name))?;
        // Who took no part in the election may not acknowledge either.
        let safekeepers = members.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>().join(",");
        let safekeepers = ("ironpage.safekeepers", safekeepers);
        let child = postgres::start(&self.cluster, &self.endpoint, &self.paths, &self.programs, &data_dir, vec![safekeepers])?;
        let is_ready = |ready: Instant| {
            let ms = |time: Duration| time.as_millis();
            log::line(
                "INFO",
                &format!(
                    "ready after {} ms: election {}, base backup {}, postgres {}",
                    ms(ready - began),
                    ms(elected),
                    ms(backed_up - elected),
                    ms(ready - began - backed_up)
                ),
            );
        };
        let vigil = Vigil::start(&self.cluster, &self.endpoint, &place);
        self.watch(child, &data_dir, is_ready, || vigil.pointless())
    }

    /// What the endpoint's branch is now: a reset or a restore may have put another timeline under its name.
    fn find_branch(&mut self) -> Result<Place> {
        let mut attempts = 0;
        loop {
            // A rename of the branch is in the cluster's file.
            self.endpoint = Cluster::open(&self.cluster.dir)?.endpoint(&self.endpoint.name)?.clone();
            match Place::find(&self.cluster, &self.endpoint.tenant, &self.endpoint.branch) {
                Err(error) if error.may_pass() => self.wait_out(&error, &mut attempts)?,
                Err(Error::Api { code: ApiCode::NotFound, .. }) => return Err(Error::BranchGone(self.endpoint.branch.clone())),
                done => return done,
            }
        }
    }

    /// Tries until it has a quorum, saying what is missing. With the term come those who took part.
    fn elect(&mut self, place: &Place, rule: Rule) -> Result<(Won, Vec<Peer>)> {
        let mut attempts = 0;
        loop {
            let attempt = creation::members(&self.cluster, place).and_then(|members| {
                let name = &place.branch.name;
                let won = launcher::elect(name, &members, place.identity(), rule, &mut self.record, &self.signals)?;
                Ok((won, members))
            });
            match attempt {
                Err(error @ (Error::NoQuorum { .. } | Error::Endpoint(_))) => {
                    self.wait_out_unless_gone(&error, place, &mut attempts)?
                }
                Err(error) if error.may_pass() => self.wait_out(&error, &mut attempts)?,
                done => return done,
            }
        }
    }

    /// Pauses after an attempt that failed, unless it did because there is no such branch any more.
    fn wait_out_unless_gone(&mut self, error: &Error, place: &Place, attempts: &mut u32) -> Result<()> {
        if let Err(gone @ Error::BranchGone(_)) = creation::present(&self.cluster, place) {
            return Err(gone);
        }
        self.wait_out(error, attempts)
    }

    /// Tries until the directory is whole, saying what is missing.
    fn fill_data_dir(&mut self, place: &Place, won: &Won, members: &[Peer], data_dir: &DataDir) -> Result<()> {
        let mut attempts = 0;
        loop {
            match self.try_fill_data_dir(place, won, members, data_dir) {
                Err(Error::Remote { peer, source }) if source.code == ErrorCode::Fenced => {
                    return Err(Error::Fenced(format!("{peer}: {source}")));
                }
                Err(error) => self.wait_out_unless_gone(&error, place, &mut attempts)?,
                Ok(()) => return Ok(()),
            }
        }
    }

    fn try_fill_data_dir(&self, place: &Place, won: &Won, members: &[Peer], data_dir: &DataDir) -> Result<()> {
        let (lsn, system_id, identity) = (won.start_lsn, place.branch.system_id, place.identity());
        DirBuilder::new().recursive(true).mode(0o755).create(&self.paths.dir).at("create directory", &self.paths.dir)?;
        files::remove_if_there(&data_dir.path)?;
        basebackup::create_tree(data_dir)?;
        let received = basebackup::fetch(&self.cluster.pageserver(), identity, won.term, lsn, data_dir)?;
        let prefix = wal::read(members, identity, won.term, lsn.segment_start(), lsn)?;
        control::write(data_dir, &received, lsn, system_id, &prefix)?;
        postgres::write_configuration(data_dir, &self.paths)?;
        postgres::install_library(&self.paths, &self.programs)?;
        let ticket = Ticket {
            mode: Mode::Primary { term: won.term, history: won.history.clone() },
            start_lsn: lsn,
            tenant: place.tenant,
            timeline: place.branch.id,
            system_id,
        };
        ticket.write(&data_dir.path, &self.owner)
    }

    /// Waits for the end of Postgres. `on_ready` is told when it accepts connections; `pointless` is asked now and then
    /// whether there is a reason to start it anew.
    fn watch(
        &mut self,
        mut child: Child,
        data_dir: &DataDir,
        on_ready: impl Fn(Instant),
        pointless: impl Fn() -> Option<&'static str>,
    ) -> Result<End> {
        let pid = child.id();
        self.state.postmaster = Process::of(pid as i32);
        self.say(Phase::Starting, "waiting for postgres to accept connections");
        let held =
            PidFd::open(pid as i32).map_err(|source| Error::Program { program: self.programs.postgres("postgres"), source })?;
        let (mut was_ready, mut stopping, mut shared_memory) = (false, false, None);
        let mut ended_because = None;
        loop {
            if ended_because.is_none()
                && let Some(why) = pointless()
            {
                ended_because = Some(why);
                let _ = held.signal(libc::SIGQUIT);
            }
            let timeout = if was_ready || stopping { KEEP_CONF_EVERY } else { Duration::from_millis(2) };
            match self.signals.wait(Some(&held), timeout) {
                Woken::ProcessEnded => break,
                Woken::Signal(signal) => {
                    // Fast shutdown, or immediate (pmdie, postmaster.c).
                    let forwarded = if signal == libc::SIGQUIT { libc::SIGQUIT } else { libc::SIGINT };
                    let _ = held.signal(forwarded);
                    stopping = true;
                    self.say(Phase::Stopping, "waiting for postgres to end");
                }
                Woken::Timeout if was_ready => self.keep_auto_conf(data_dir),
                Woken::Timeout => {
                    if !stopping && postgres::is_ready(&data_dir.path, pid) {
                        was_ready = true;
                        shared_memory = SharedMemory::of(&data_dir.path);
                        on_ready(Instant::now());
                        self.say(Phase::Running, "");
                    }
                }
            }
        }
        let status = child.wait().map_err(|source| Error::Program { program: self.programs.postgres("postgres"), source })?;
        self.state.postmaster = None;
        self.keep_auto_conf(data_dir);
        if status.signal().is_some() {
            shared_memory.iter().for_each(SharedMemory::remove);
        }
        if stopping {
            log::line("INFO", &format!("stopped: postgres {}", in_words(status)));
            return Ok(End::Stopped);
        }
        if data_dir.path.join("ironpage.fenced").exists() {
            return Err(Error::Fenced("another endpoint took over the branch".into()));
        }
        let how = match ended_because {
            Some(why) => format!("was stopped: {why}"),
            None => in_words(status),
        };
        Ok(End::Crashed { was_ready, how })
    }

    fn keep_auto_conf(&self, data_dir: &DataDir) {
        if let Err(error) = postgres::keep_auto_conf(&data_dir.path, &self.paths) {
            log::line("WARN", &format!("what ALTER SYSTEM set may be lost at the next start: {error}"));
        }
    }

    /// Removes what earlier starts left: their postmasters have ended. It takes its time with a full cache, so nobody waits.
    fn remove_other_data_dirs(&self, ours: &DataDir) {
        let Ok(entries) = fs::read_dir(&self.paths.dir) else { return };
        let paths = entries.flatten().map(|entry| entry.path());
        let old: Vec<_> = paths.filter(|path| self.paths.is_data_dir(path) && *path != ours.path).collect();
        std::thread::spawn(move || {
            for path in old {
                // Backends of a killed postmaster may still write there: what is left goes with the next start.
                if let Err(error) = files::remove_if_there(&path) {
                    log::line("WARN", &error.to_string());
                }
            }
        });
    }

    /// Logs why an attempt failed, tells the waiting command, and pauses before the next.
    fn wait_out(&mut self, error: &Error, attempts: &mut u32) -> Result<()> {
        let message = error.to_string();
        if self.state.message != message {
            log::line("WARN", &format!("{message}; trying again"));
            self.say(Phase::Starting, &message);
        }
        *attempts += 1;
        self.pause(*attempts)
    }

    fn pause(&self, attempts: u32) -> Result<()> {
        if attempts == 0 {
            return Ok(());
        }
        let pause = Duration::from_millis(50 << attempts.min(6)).min(PAUSE_MAX);
        match self.signals.wait(None, pause) {
            Woken::Signal(_) => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }

    fn say(&mut self, phase: Phase, message: &str) {
        self.state.phase = phase;
        self.state.message = message.to_string();
        if let Err(error) = self.state.write(&self.paths) {
            log::line("ERROR", &format!("cannot tell the state of the endpoint: {error}"));
        }
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".into(),
    }
}
