//! What the .proto files say of each message and of the JSON gateway's paths, as the build has read
//! it: for code that does not know a message's type in Rust.

/// A field, as the description of its message has it.
#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub wire: u8,
    /// Whether one field may hold several values (a packed repeated field).
    pub is_packable: bool,
    /// The shape of the message that it holds.
    pub inner: Option<usize>,
    /// Its name in the file, and the one in camel case.
    pub name: &'static str,
    pub json_name: &'static str,
    pub kind: Kind,
    pub is_list: bool,
    /// The full name of the oneof that it is a member of.
    pub oneof: Option<&'static str>,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Message,
    /// Numbers and their names.
    Enum(&'static [(i32, &'static str)]),
}

/// A path of the JSON gateway, and the call that it stands for.
#[derive(Debug)]
pub struct Route {
    pub post: &'static str,
    /// The path of the gRPC call.
    pub call: &'static str,
    /// The shapes of the messages.
    pub input: usize,
    pub output: usize,
    /// Whether there may be any number of them.
    pub takes_many: bool,
    pub gives_many: bool,
}

/// A message that is in the table.
pub trait Shaped {
    const SHAPE: usize;
}

/// The fields of the message with this shape, as its file declares them.
pub fn fields(shape: usize) -> &'static [Field] {
    SHAPES[shape]
}

/// The field with this number.
pub fn field(shape: usize, number: u32) -> Option<&'static Field> {
    fields(shape).iter().find(|field| field.number == number)
}

impl Kind {
    /// The name that an enum has for the value.
    pub fn name_of(self, value: i32) -> Option<&'static str> {
        let Self::Enum(names) = self else { return None };
        names.iter().find(|(of, _)| *of == value).map(|(_, name)| *name)
    }
}

impl Field {
    /// Whether a value of this wire type belongs to the field.
    pub fn takes(&self, wire: u8) -> bool {
        wire == self.wire || self.is_packable && wire == LENGTH_DELIMITED
    }
}

/// The wire type of what has a length before it.
const LENGTH_DELIMITED: u8 = 2;

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));
