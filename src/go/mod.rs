//! How Go reads and writes numbers, times, quotes, lists, the system's errors and the codes of gRPC.
//!
//! Go's standard library makes the texts of etcd's flags, errors, log lines and command output, and
//! scripts match them. So each of its forms is here once, for the server, the commands and the
//! rooms between. What to do about a text that cannot be parsed is the caller's business.

mod csv;
mod duration;
mod grpc;
mod number;
mod quote;
mod system;
mod time;

pub use csv::parse_csv;
pub use duration::{duration, parse_duration};
pub use grpc::GRPC_CODES;
pub use number::{NumberError, numbers, parse_bool, parse_int, parse_uint, parse_uint32};
pub use quote::{backquote, quote, unquote};
pub use system::reason;
pub use time::timestamp;
