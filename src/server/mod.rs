//! (under construction)
mod config;
mod flags;
mod go;
mod log;
mod url;
