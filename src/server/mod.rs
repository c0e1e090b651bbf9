//! (under construction)
mod config;
mod flags;
mod go;
mod url;
