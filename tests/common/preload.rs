//! The preloaded library that stands between a member and its disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Compiles `shim.c`, once per test process, and returns the library.
pub fn build() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let compile = || {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = dir.join(format!("shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/shim.c");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(compiler);
        command.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        let status = command.args(["-ldl", "-pthread"]).status().unwrap();
        assert!(status.success(), "the shim does not compile");
        library
    };
    LIBRARY.get_or_init(compile).clone()
}
