//! As much of RFC 6455 §5 as a client needs: masked frames out, unmasked frames in.

/// Most bytes of payload that a frame from the server may announce; a fault, not a limit, in this setting.
const PAYLOAD_MAX: u64 = 1 << 26;
/// Longest payload of a control frame (§5.5).
const CONTROL_MAX: usize = 125;

/// Opcodes of §5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// Appends one final, masked frame.
pub(crate) fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    out.push(0x80 | opcode.bits());
    if let Ok(short) = u8::try_from(payload.len())
        && short < 126
    {
        out.push(0x80 | short);
    } else if let Ok(medium) = u16::try_from(payload.len()) {
        out.push(0x80 | 126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// What a server's bytes turn out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Some of the payload of a message.
    Data(&'a [u8]),
    /// The message is complete.
    End,
    /// A ping; its payload must go back.
    Ping(&'a [u8]),
}

/// Cuts a server's bytes into [`Part`]s, whatever pieces they come in.
#[derive(Debug)]
pub(crate) enum Reader {
    /// WebSocket frames.
    Frames(Frames),
    /// A mirror's bytes: every `length` of them are a message.
    Mirror { length: usize, have: usize },
}

impl Reader {
    pub(crate) fn frames() -> Self {
        Self::Frames(Frames::default())
    }

    pub(crate) fn mirror(length: usize) -> Self {
        Self::Mirror { length, have: 0 }
    }

    /// Hands every part in `bytes` to `sink`.
    ///
    /// # Errors
    /// What the server did that RFC 6455 does not allow it, or that it closed; or what `sink` says.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Part<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        match self {
            Self::Frames(frames) => frames.feed(bytes, sink),
            Self::Mirror { length, have } => {
                while !bytes.is_empty() {
                    let (data, rest) = bytes.split_at(bytes.len().min(*length - *have));
                    *have += data.len();
                    bytes = rest;
                    sink(Part::Data(data))?;
                    if have == length {
                        *have = 0;
                        sink(Part::End)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The state between two pieces of a stream of frames.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// A header that is not complete yet: its first `have` bytes.
    header: [u8; 10],
    have: u8,
    /// The frame whose payload is being read.
    current: Option<Frame>,
    control: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    left: u64,
}

impl Frames {
    fn feed(
        &mut self,
        mut bytes: &[u8],
        mut sink: impl FnMut(Part<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        loop {
            let Some(frame) = &mut self.current else {
                if !self.header(&mut bytes)? {
                    return Ok(());
                }
                continue;
            };
            let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
            let (payload, rest) = bytes.split_at(bytes.len().min(left));
            bytes = rest;
            frame.left -= payload.len() as u64;
            let ended = frame.left == 0;
            match frame.opcode {
                Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                    if !payload.is_empty() {
                        sink(Part::Data(payload))?;
                    }
                    if ended && frame.is_final {
                        sink(Part::End)?;
                    }
                }
                Opcode::Ping => {
                    self.control.extend_from_slice(payload);
                    if ended {
                        sink(Part::Ping(&self.control))?;
                        self.control = Vec::new();
                    }
                }
                Opcode::Pong => {}
                Opcode::Close => return Err("the server sent a close frame"),
            }
            if !ended {
                return Ok(());
            }
            self.current = None;
        }
    }

    /// Takes what belongs to the header; true once it is whole.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<bool, &'static str> {
        loop {
            let have = usize::from(self.have);
            let need = match (have, self.header[1] & 0x7f) {
                (0 | 1, _) => 2,
                (_, 126) => 4,
                (_, 127) => 10,
                _ => 2,
            };
            if have >= need {
                break;
            }
            let Some((byte, rest)) = bytes.split_first() else {
                return Ok(false);
            };
            self.header[have] = *byte;
            self.have += 1;
            *bytes = rest;
        }
        let [first, second, ..] = self.header;
        let left = match (second & 0x7f, &self.header) {
            (126, [_, _, a, b, ..]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [_, _, length @ ..]) => u64::from_be_bytes(*length),
            (short, _) => u64::from(short),
        };
        let opcode = Opcode::from_bits(first & 0x0f).ok_or("a frame with a reserved opcode")?;
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if first & 0x70 != 0 {
            return Err("a frame with reserved bits set");
        }
        if second & 0x80 != 0 {
            return Err("a masked frame from the server");
        }
        if left > PAYLOAD_MAX || is_control && left > CONTROL_MAX as u64 {
            return Err("a frame that is too long");
        }
        self.have = 0;
        self.current = Some(Frame {
            opcode,
            is_final: first & 0x80 != 0,
            left,
        });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts as owned values, data of one message joined.
    fn read(reader: &mut Reader, pieces: &[&[u8]]) -> Result<Vec<String>, &'static str> {
        let (mut parts, mut data) = (Vec::new(), Vec::new());
        for piece in pieces {
            reader.feed(piece, |part| {
                match part {
                    Part::Data(some) => data.extend_from_slice(some),
                    Part::End => {
                        parts.push(format!("message {}", String::from_utf8_lossy(&data)));
                        data.clear();
                    }
                    Part::Ping(payload) => {
                        parts.push(format!("ping {}", String::from_utf8_lossy(payload)));
                    }
                }
                Ok(())
            })?;
        }
        Ok(parts)
    }

    #[test]
    fn the_masked_example_of_5_7_is_encoded() {
        let mut out = Vec::new();
        encode(&mut out, Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(
            out,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, header) in [
            (125, vec![0x82, 0x80 | 125]),
            (126, vec![0x82, 0x80 | 126, 0, 126]),
            (65_535, vec![0x82, 0x80 | 126, 0xff, 0xff]),
            (65_536, vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            encode(&mut out, Opcode::Binary, &vec![0; length], [0; 4]);
            assert_eq!(out[..header.len()], header);
            assert_eq!(out.len(), header.len() + 4 + length);
        }
    }

    #[test]
    fn any_split_of_the_input_gives_the_same_parts() {
        // Fragmented "Hello" with a ping between (§5.7), an empty message, 200 bytes.
        let mut stream = vec![
            0x01, 3, b'H', b'e', b'l', 0x89, 2, b'h', b'i', 0x80, 2, b'l', b'o',
        ];
        stream.extend([0x82, 0, 0x82, 126, 0, 200]);
        stream.extend([b'x'; 200]);
        let whole = read(&mut Reader::frames(), &[&stream]).unwrap();
        assert_eq!(whole[..3], ["ping hi", "message Hello", "message "]);
        assert_eq!(whole[3].len(), "message ".len() + 200);
        for at in 1..stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(
                read(&mut Reader::frames(), &[head, tail]).unwrap(),
                whole,
                "split at {at}"
            );
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&mut Reader::frames(), &single).unwrap(), whole);
    }

    #[test]
    fn what_a_server_may_not_send_is_a_fault() {
        for bytes in [
            &[0x83, 0][..],
            &[0xc2, 0],
            &[0x82, 0x80, 0, 0, 0, 0],
            &[0x89, 126, 0, 200],
            &[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0],
            &[0x88, 2, 3, 0xe8],
        ] {
            assert!(read(&mut Reader::frames(), &[bytes]).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn a_mirror_is_cut_by_length() {
        let parts = read(&mut Reader::mirror(3), &[b"ab", b"cde", b"f"]).unwrap();
        assert_eq!(parts, ["message abc", "message def"]);
    }
}
