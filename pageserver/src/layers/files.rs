//! Open layer files, bounded in number; the longest unused is closed.

use ironpage_io::fs::File;
use std::collections::HashMap;
use std::rc::Rc;

/// Files by the number of their layer. A read in progress keeps its file open beyond the bound.
pub struct OpenFiles {
    files: HashMap<u64, (Rc<File>, u64)>,
    files_max: usize,
    tick: u64,
}

impl OpenFiles {
    pub fn new(files_max: usize) -> OpenFiles {
        OpenFiles { files: HashMap::new(), files_max: files_max.max(1), tick: 0 }
    }

    pub fn get(&mut self, layer: u64) -> Option<Rc<File>> {
        self.tick += 1;
        let (file, used) = self.files.get_mut(&layer)?;
        *used = self.tick;
        Some(file.clone())
    }

    pub fn insert(&mut self, layer: u64, file: Rc<File>) {
        self.tick += 1;
        self.files.insert(layer, (file, self.tick));
        while self.files.len() > self.files_max {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(layer, _)| *layer);
            oldest.and_then(|layer| self.files.remove(&layer));
        }
    }
}
