//! The bytes of one connection.

use ironpage_layout::NodeId;
use ironpage_layout::wire::{Header, WireError, split_frame};

#[derive(Default)]
pub(super) struct Session {
    pub open: bool,
    /// Who answered our hello.
    pub node: Option<NodeId>,
    /// The safekeeper told its state: the connection works.
    pub greeted: bool,
    pub input: Vec<u8>,
    pub output: Vec<u8>,
    /// Bytes of `output` that were sent.
    pub sent: usize,
}

impl Session {
    /// Takes the first whole frame out of what came. Replies are small, so their payload is copied.
    pub fn next_frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, WireError> {
        let Some((header, payload, taken)) = split_frame(&self.input)? else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.input.drain(..taken);
        Ok(Some((header, payload)))
    }

    pub fn unsent(&self) -> &[u8] {
        self.output.get(self.sent..).unwrap_or_default()
    }

    pub fn mark_sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > 1 << 20 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}
