//! A disk that can be full.
//!
//! Root gets a file system of its own in a file. Who may not mount one gets the nearest thing: a limit on the
//! size of files that a process may write (`IRONPAGE_TEST_NO_MOUNT=1` asks for that too). Writes fail with
//! ENOSPC in the one case and with EFBIG in the other.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Above any log, below anything else that is written at length.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a directory lies on; put away when dropped.
pub struct Disk {
    dir: PathBuf,
    /// The file with the file system, if one is mounted.
    image: Option<PathBuf>,
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))) }
}

impl Disk {
    /// Puts `dir`, which nobody uses now, on a disk of so many MiB.
    pub fn under(dir: &Path, mib: u64) -> Disk {
        let image = dir.with_extension("disk");
        let allowed = fs::metadata("/proc/self").unwrap().uid() == 0 && std::env::var_os("IRONPAGE_TEST_NO_MOUNT").is_none();
        let mounted = allowed && Disk::mount(dir, &image, mib).inspect_err(|error| eprintln!("no mount: {error}")).is_ok();
        if !mounted {
            let _ = fs::remove_file(&image);
        }
        Disk { dir: dir.to_path_buf(), image: mounted.then_some(image) }
    }

    fn mount(dir: &Path, image: &Path, mib: u64) -> Result<(), String> {
        let file = File::create(image).map_err(|error| error.to_string())?;
        file.set_len(mib << 20).map_err(|error| error.to_string())?;
        let [quiet, features, all] = ["-q", "-O^has_journal", "-m0"].map(Path::new);
        run("mkfs.ext4", &[quiet, features, all, image])?;
        let content = dir.with_extension("content");
        fs::rename(dir, &content).map_err(|error| error.to_string())?;
        fs::create_dir(dir).map_err(|error| error.to_string())?;
        let mounted = run("mount", &[Path::new("-oloop"), image, dir]);
        if mounted.is_err() {
            fs::remove_dir(dir).unwrap();
            fs::rename(&content, dir).unwrap();
            return mounted;
        }
        run("cp", &[Path::new("-a"), &content.join("."), dir]).expect("copying what was there");
        fs::remove_dir_all(content).unwrap();
        Ok(())
    }

    /// Nothing more can be written there, by these processes at least.
    pub fn fill(&self, pids: &[i32]) {
        if self.image.is_none() {
            pids.iter().for_each(|pid| limit(*pid, &FILE_BYTES_MAX.to_string()));
            return;
        }
        let mut ballast = File::create(self.dir.join("ballast")).unwrap();
        for piece in [1 << 20, 4096] {
            let piece = vec![1; piece];
            while ballast.write_all(&piece).is_ok() {}
        }
        // Space for what is still in memory alone goes first.
        let _ = ballast.sync_all();
    }

    /// There is room again, also for those that run since.
    pub fn free(&self, pids: &[i32]) {
        match self.image {
            Some(_) => fs::remove_file(self.dir.join("ballast")).unwrap(),
            None => pids.iter().for_each(|pid| limit(*pid, "unlimited")),
        }
    }

    /// What the kernel says when it is full.
    pub fn error(&self) -> &'static str {
        if self.image.is_some() { "No space left on device" } else { "File too large" }
    }
}

/// As the user whose process it is: only root with all its rights may do it to others.
fn limit(pid: i32, bytes: &str) {
    let Ok(owner) = fs::metadata(format!("/proc/{pid}")).map(|status| (status.uid(), status.gid())) else { return };
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")]);
    if owner.0 != 0 && fs::metadata("/proc/self").unwrap().uid() == 0 {
        prlimit.uid(owner.0).gid(owner.1);
    }
    // A process that ended meanwhile writes nothing either.
    let _ = prlimit.output().expect("running prlimit");
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(image) = &self.image {
            if let Err(error) = run("umount", &[Path::new("--lazy"), &self.dir]) {
                eprintln!("{error}");
            }
            let _ = fs::remove_file(image);
        }
    }
}
