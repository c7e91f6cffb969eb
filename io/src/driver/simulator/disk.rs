//! A disk in memory that knows what a power failure would leave of it.
//!
//! A file is its durable content and the changes since, in order. A sync makes those durable that were
//! made before the sync was submitted. Names are durable when their directory was synced after the
//! change; directories themselves are at once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::driver::random::SplitMix;
use crate::error::Errno;
use crate::fs::Options;

/// What a device writes whole or not at all.
pub(super) const SECTOR: usize = 512;

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Default)]
pub(super) struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// With the number of the change on its disk.
    changes: Vec<(u64, Change)>,
}

/// Something open.
#[derive(Clone)]
pub(super) enum Node {
    File(Rc<RefCell<Inode>>),
    Dir(PathBuf),
}

/// Clones are the same disk, so that it outlives the core that used it.
#[derive(Clone, Default)]
pub struct Disk(Rc<State>);

#[derive(Default)]
struct State {
    files: RefCell<BTreeMap<PathBuf, Rc<RefCell<Inode>>>>,
    durable_files: RefCell<BTreeMap<PathBuf, Rc<RefCell<Inode>>>>,
    dirs: RefCell<BTreeSet<PathBuf>>,
    changes: Cell<u64>,
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => content.resize(*len, 0),
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*offset..end].copy_from_slice(bytes);
        }
    }
}

impl Inode {
    fn change(&mut self, number: u64, change: Change) {
        apply(&mut self.current, &change);
        self.changes.push((number, change));
    }

    /// Changes up to `number`, taken out.
    fn take(&mut self, number: u64) -> Vec<Change> {
        let count = self.changes.partition_point(|(made, _)| *made <= number);
        self.changes.drain(..count).map(|(_, change)| change).collect()
    }
}

impl Node {
    pub(super) fn file(&self) -> Result<&Rc<RefCell<Inode>>, Errno> {
        match self {
            Self::File(inode) => Ok(inode),
            Self::Dir(_) => Err(Errno(libc::EISDIR)),
        }
    }

    pub(super) fn size(&self) -> Result<u64, Errno> {
        Ok(self.file()?.borrow().current.len() as u64)
    }

    pub(super) fn read(&self, offset: u64, len: usize, to: impl FnOnce(&[u8])) -> Result<usize, Errno> {
        let inode = self.file()?.borrow();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.current.len());
        let end = begin.saturating_add(len).min(inode.current.len());
        to(&inode.current[begin..end]);
        Ok(end - begin)
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails: of what was not synced any part may be lost, down to single sectors of a write
    /// and single names of a directory, as `seed` decides. Call it between cores.
    pub fn crash(&self, seed: u64) {
        let mut random = SplitMix(seed);
        let mut kept = || random.next().is_multiple_of(2);
        let mut files = self.0.files.borrow_mut();
        let mut durable_files = self.0.durable_files.borrow_mut();
        let names: BTreeSet<PathBuf> = files.keys().chain(durable_files.keys()).cloned().collect();
        for name in names {
            if kept() {
                match files.get(&name) {
                    Some(inode) => durable_files.insert(name, inode.clone()),
                    None => durable_files.remove(&name),
                };
            }
        }
        // A directory that was removed is gone for good, and no name is left without one.
        durable_files.retain(|name, _| name.parent().is_some_and(|dir| self.is_dir(dir)));
        for inode in durable_files.values() {
            let inode = &mut *inode.borrow_mut();
            for change in inode.take(u64::MAX) {
                match change {
                    Change::SetLen(_) if !kept() => {}
                    Change::SetLen(_) => apply(&mut inode.durable, &change),
                    Change::Write { offset, bytes } => {
                        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                            if kept() {
                                let offset = offset + index * SECTOR;
                                apply(&mut inode.durable, &Change::Write { offset, bytes: sector.to_vec() });
                            }
                        }
                    }
                }
            }
            inode.current = inode.durable.clone();
        }
        *files = durable_files.clone();
    }

    /// Number of the last change.
    pub(super) fn changes(&self) -> u64 {
        self.0.changes.get()
    }

    fn next_change(&self) -> u64 {
        self.0.changes.set(self.changes() + 1);
        self.changes()
    }

    pub(super) fn write(&self, node: &Node, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let offset = usize::try_from(offset).map_err(|_| Errno(libc::EFBIG))?;
        if !bytes.is_empty() {
            node.file()?.borrow_mut().change(self.next_change(), Change::Write { offset, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    pub(super) fn set_len(&self, node: &Node, len: u64) -> Result<(), Errno> {
        let len = usize::try_from(len).map_err(|_| Errno(libc::EFBIG))?;
        node.file()?.borrow_mut().change(self.next_change(), Change::SetLen(len));
        Ok(())
    }

    pub(super) fn sync(&self, node: &Node, changes: u64) {
        match node {
            Node::File(inode) => {
                let inode = &mut *inode.borrow_mut();
                for change in inode.take(changes) {
                    apply(&mut inode.durable, &change);
                }
            }
            Node::Dir(path) => {
                let within = |name: &PathBuf| name.parent() == Some(path);
                let mut durable = self.0.durable_files.borrow_mut();
                durable.retain(|name, _| !within(name));
                let files = self.0.files.borrow();
                durable.extend(files.iter().filter(|(name, _)| within(name)).map(|(name, inode)| (name.clone(), inode.clone())));
            }
        }
    }

    /// A failed sync: these changes are never written, and nobody is told again.
    pub(super) fn forget(&self, node: &Node, changes: u64) {
        if let Node::File(inode) = node {
            drop(inode.borrow_mut().take(changes));
        }
    }

    fn is_dir(&self, path: &Path) -> bool {
        path == Path::new("/") || self.0.dirs.borrow().contains(path)
    }

    pub(super) fn open(&self, path: &Path, options: &Options) -> Result<Node, Errno> {
        if self.is_dir(path) {
            return Err(Errno(libc::EISDIR));
        }
        let mut files = self.0.files.borrow_mut();
        let inode = match files.get(path) {
            Some(_) if options.create_new => return Err(Errno(libc::EEXIST)),
            Some(inode) => inode.clone(),
            None if (options.create || options.create_new) && path.parent().is_some_and(|dir| self.is_dir(dir)) => {
                files.entry(path.into()).or_default().clone()
            }
            None => return Err(Errno(libc::ENOENT)),
        };
        let node = Node::File(inode);
        if options.truncate {
            self.set_len(&node, 0)?;
        }
        Ok(node)
    }

    pub(super) fn open_dir(&self, path: &Path) -> Result<Node, Errno> {
        if self.is_dir(path) { Ok(Node::Dir(path.into())) } else { Err(Errno(libc::ENOENT)) }
    }

    /// Files only.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Errno> {
        let mut files = self.0.files.borrow_mut();
        let inode = files.remove(from).ok_or(Errno(libc::ENOENT))?;
        files.insert(to.into(), inode);
        Ok(())
    }

    pub(super) fn remove_file(&self, path: &Path) -> Result<(), Errno> {
        self.0.files.borrow_mut().remove(path).map(drop).ok_or(Errno(libc::ENOENT))
    }

    pub(super) fn remove_dir_all(&self, path: &Path) -> Result<(), Errno> {
        if !self.is_dir(path) {
            return Err(Errno(libc::ENOENT));
        }
        self.0.files.borrow_mut().retain(|name, _| !name.starts_with(path));
        self.0.dirs.borrow_mut().retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    pub(super) fn create_dir_all(&self, path: &Path) {
        self.0.dirs.borrow_mut().extend(path.ancestors().map(PathBuf::from));
    }

    pub(super) fn read_dir(&self, path: &Path) -> Result<Vec<String>, Errno> {
        if !self.is_dir(path) {
            return Err(Errno(libc::ENOENT));
        }
        let (files, dirs) = (self.0.files.borrow(), self.0.dirs.borrow());
        let entries = files.keys().chain(dirs.iter()).filter(|name| name.parent() == Some(path));
        let names = entries.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.is_dir(path) || self.0.files.borrow().contains_key(path)
    }
}
