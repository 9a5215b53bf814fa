//! The messages of a run, encoded once: sending is then one write of a slice, whatever the depth.

use crate::frame::{self, Opcode};

/// Some frames with the same payload, back to back, and what must come back for each.
#[derive(Debug)]
pub(crate) struct Template {
    frames: Vec<u8>,
    frame_bytes: usize,
    expected: Vec<u8>,
}

impl Template {
    /// `count` frames of `size` payload bytes. A mirror (`raw`) sends the frame back as it is, a
    /// WebSocket server its payload.
    pub(crate) fn new(size: u32, text: bool, count: u32, raw: bool) -> Self {
        let (opcode, payload): (_, Vec<u8>) = if text {
            (
                Opcode::Text,
                (0..size)
                    .zip((b'a'..=b'z').cycle())
                    .map(|(_, letter)| letter)
                    .collect(),
            )
        } else {
            // A period that divides no buffer size, so that a displaced payload is noticed.
            (
                Opcode::Binary,
                (0..size)
                    .zip((0..251).cycle())
                    .map(|(_, byte)| byte)
                    .collect(),
            )
        };
        let mut frames = Vec::new();
        for number in 0..count {
            // Masks have to vary, not to be secret: nobody is between the two processes.
            let mask = number
                .wrapping_add(1)
                .wrapping_mul(0x9e37_79b9)
                .to_be_bytes();
            frame::encode(&mut frames, opcode, &payload, mask);
        }
        let frame_bytes = frames.len() / (count as usize).max(1);
        let expected = if raw {
            frames[..frame_bytes].to_vec()
        } else {
            payload
        };
        Self {
            frames,
            frame_bytes,
            expected,
        }
    }

    /// No message at all, for runs that only connect.
    pub(crate) fn none() -> Self {
        Self {
            frames: Vec::new(),
            frame_bytes: 0,
            expected: Vec::new(),
        }
    }

    /// The first `count` frames.
    pub(crate) fn frames(&self, count: usize) -> &[u8] {
        &self.frames[..count * self.frame_bytes]
    }

    /// What comes back for the first frame; for the others, something as long.
    pub(crate) fn expected(&self) -> &[u8] {
        &self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_borders_and_differ_in_their_mask() {
        let template = Template::new(64, false, 3, false);
        assert_eq!(template.frames(1).len(), 2 + 4 + 64);
        assert_eq!(template.frames(3).len(), 3 * template.frames(1).len());
        assert_ne!(template.frames(2)[70..], *template.frames(1));
        assert_eq!(template.expected().len(), 64);
    }

    #[test]
    fn a_mirror_returns_the_frame() {
        let template = Template::new(5, true, 2, true);
        assert_eq!(template.expected(), template.frames(1));
    }
}
