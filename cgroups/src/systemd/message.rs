//! D-Bus messages as bytes: what the D-Bus specification calls marshalling, as far as calls to systemd
//! need it.
//!
//! Every value is aligned to its size, counted from the start of the message; a string has its length
//! before and a NUL after; an array has its length in bytes before; a struct starts at a multiple of
//! eight. We write little endian, and read either.

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A method call.
    Call = 1,
    /// The answer to one.
    Return = 2,
    /// The refusal of one.
    Error = 3,
    /// Something that happened.
    Signal = 4,
}

/// Bytes before the array of header fields.
const FIXED: usize = 12;
/// Longest message that we take. The specification allows 128 MiB; what systemd sends is far below.
const LONGEST: usize = 16 << 20;

/// Header fields, by their number.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Whom a method call goes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    /// Name of the receiver on the bus.
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

impl Method<'_> {
    /// The message: this method, with arguments of the types in `signature`.
    pub(super) fn call(&self, serial: u32, signature: &str, arguments: &Writer) -> Vec<u8> {
        let body = &arguments.0;
        let mut message = Writer::default();
        message.0.extend([b'l', Kind::Call as u8, 0, 1]);
        message.u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        message.u32(serial);
        message.array(8, |fields| {
            for (number, kind, text) in [
                (PATH, "o", self.path),
                (MEMBER, "s", self.member),
                (INTERFACE, "s", self.interface),
                (DESTINATION, "s", self.destination),
            ] {
                fields.align(8);
                fields.0.push(number);
                fields.signature(kind);
                fields.string(text);
            }
            if !signature.is_empty() {
                fields.align(8);
                fields.0.push(SIGNATURE);
                fields.signature("g");
                fields.signature(signature);
            }
        });
        message.align(8);
        message.0.extend(body);
        message.0
    }
}

/// Values of a message, one after the other.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// `y`
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// `b`
    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    /// `u`
    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    /// `t`
    pub(super) fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    /// `s`, `o`
    pub(super) fn string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `g`
    pub(super) fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// `a...`, of elements that are aligned to `alignment`.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        elements(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// A message that came in.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Serial of the call that this answers.
    pub(super) reply_to: Option<u32>,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error_name: String,
    /// Types of the arguments.
    pub(super) signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// How many bytes the message has that begins with `start`, which must be 16 bytes. `None` if this is no
/// D-Bus message.
pub(super) fn length(start: &[u8; 16]) -> Option<usize> {
    let big_endian = big_endian(start[0])?;
    let mut reader = Reader { bytes: start, at: 4, big_endian };
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    let length = (FIXED + 4 + fields).next_multiple_of(8) + body;
    (fields < LONGEST && body < LONGEST).then_some(length)
}

fn big_endian(mark: u8) -> Option<bool> {
    match mark {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

impl Message {
    /// Takes a whole message apart. `None` if it is malformed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
        let big_endian = big_endian(*bytes.first()?)?;
        let kind = match bytes.get(1)? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return None,
        };
        let mut reader = Reader { bytes, at: FIXED, big_endian };
        let fields = reader.u32()? as usize;
        let end = reader.at.checked_add(fields).filter(|end| *end <= bytes.len())?;
        let mut message = Message {
            kind,
            reply_to: None,
            interface: String::new(),
            member: String::new(),
            error_name: String::new(),
            signature: String::new(),
            body: bytes.get(end.next_multiple_of(8)..)?.to_owned(),
            big_endian,
        };
        while reader.at < end {
            reader.align(8);
            let number = reader.byte()?;
            match reader.signature()?.as_str() {
                "u" => {
                    let value = reader.u32()?;
                    if number == REPLY_SERIAL {
                        message.reply_to = Some(value);
                    }
                }
                "g" => message.signature = reader.signature()?,
                "s" | "o" => {
                    let text = reader.string()?;
                    match number {
                        INTERFACE => message.interface = text,
                        MEMBER => message.member = text,
                        ERROR_NAME => message.error_name = text,
                        _ => {}
                    }
                }
                _ => return None,
            }
        }
        Some(message)
    }

    /// The arguments.
    pub(super) fn arguments(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }
}

/// Reads values one after the other; `None` where the message ends too early.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_owned()).ok()?;
        (self.byte()? == 0).then_some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?;
        self.text(length.into())
    }

    /// `u`
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let big_endian = self.big_endian;
        let bytes = self.take(4)?.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// `s`, `o`
    pub(super) fn string(&mut self) -> Option<String> {
        let length = self.u32()?;
        self.text(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::property::{Property, Value, write};
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// What busctl(1), which has systemd's own implementation, sends for the same calls.
    const HELLO: &str = "
        6c010001 00000000 01000000 6d000000
        01016f00 15000000 2f6f7267 2f667265 65646573 6b746f70 2f444275 73000000
        03017300 05000000 48656c6c 6f000000
        02017300 14000000 6f72672e 66726565 6465736b 746f702e 44427573 00000000
        06017300 14000000 6f72672e 66726565 6465736b 746f702e 44427573 00000000";
    const START: &str = "
        6c010001 90000000 02000000 b6000000
        01016f00 19000000 2f6f7267 2f667265 65646573 6b746f70 2f737973 74656d64 31000000 00000000
        03017300 12000000 53746172 74547261 6e736965 6e74556e 69740000 00000000
        02017300 20000000 6f72672e 66726565 6465736b 746f702e 73797374 656d6431 2e4d616e 61676572
        00000000 00000000
        06017300 18000000 6f72672e 66726565 6465736b 746f702e 73797374 656d6431 00000000 00000000
        08016700 10737361 28737629 61287361 28737629 29000000
        09000000 612d622e 73636f70 65000000 04000000 6661696c 00000000 6a000000
        04000000 50494473 00026175 00000000 04000000 4d000000
        08000000 44656c65 67617465 00016200 01000000 00000000
        09000000 4d656d6f 72794d61 78000174 00000000 00000000 00001000 00000000
        0b000000 416c6c6f 77656443 50557300 02617900 02000000 03010000 00000000";

    #[test]
    fn a_call_without_arguments() {
        let bus = "org.freedesktop.DBus";
        let path = "/org/freedesktop/DBus";
        let method = Method { destination: bus, path, interface: bus, member: "Hello" };
        assert_eq!(method.call(1, "", &Writer::default()), bytes(HELLO));
    }

    #[test]
    fn a_call_with_properties_of_every_type() {
        let properties = [
            Property::new("PIDs", Value::Numbers(vec![77])),
            Property::new("Delegate", Value::Bool(true)),
            Property::new("MemoryMax", Value::U64(1 << 20)),
            Property::new("AllowedCPUs", Value::Bytes(vec![3, 1])),
        ];
        let mut arguments = Writer::default();
        arguments.string("a-b.scope");
        arguments.string("fail");
        write(&mut arguments, &properties);
        arguments.array(8, |_| {});
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        };
        let message = method.call(2, "ssa(sv)a(sa(sv))", &arguments);
        assert_eq!(message, bytes(START));
        assert_eq!(length(message[..16].try_into().unwrap()), Some(message.len()));
    }

    #[test]
    fn a_call_is_read_back() {
        let message = Message::parse(&bytes(START)).unwrap();
        assert_eq!(message.kind, Kind::Call);
        assert_eq!(message.member, "StartTransientUnit");
        assert_eq!(message.interface, "org.freedesktop.systemd1.Manager");
        assert_eq!(message.signature, "ssa(sv)a(sa(sv))");
        let mut arguments = message.arguments();
        assert_eq!(arguments.string().as_deref(), Some("a-b.scope"));
        assert_eq!(arguments.string().as_deref(), Some("fail"));
        assert_eq!(arguments.u32(), Some(0x6a));
    }

    /// A refusal in big endian: `REPLY_SERIAL` 7, `ERROR_NAME` "a.B", one string "no".
    #[test]
    fn an_error_of_the_other_byte_order() {
        let error = bytes(
            "42030101 00000007 00000001 0000001f
             05017500 00000007 04017300 00000003 612e4200 00000000 08016700 01730000
             00000002 6e6f00",
        );
        assert_eq!(length(error[..16].try_into().unwrap()), Some(error.len()));
        let message = Message::parse(&error).unwrap();
        assert_eq!((message.kind, message.reply_to), (Kind::Error, Some(7)));
        assert_eq!((message.error_name.as_str(), message.signature.as_str()), ("a.B", "s"));
        assert_eq!(message.arguments().string().as_deref(), Some("no"));
    }

    #[test]
    fn what_is_cut_off_or_no_message_is_refused() {
        let whole = bytes(START);
        let header = whole.len() - 0x90;
        for end in 0..header {
            assert!(Message::parse(&whole[..end]).is_none(), "{end} bytes");
        }
        let cut = Message::parse(&whole[..header + 6]).unwrap();
        assert_eq!(cut.arguments().string(), None);
        assert_eq!(length(b"HTTP/1.1 400 Bad"), None);
        let mut endless = whole[..16].to_vec();
        endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(length(endless[..].try_into().unwrap()), None);
    }
}
