//! `link`: makes the links etcd, etcdctl and etcdutl, by which this binary is those programs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};

const NAMES: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// What stands where a link is to be made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// A link to this binary, or this binary.
    Ours,
    Other,
}

pub(super) fn run(context: &Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("link needs one argument, the directory: rusd link DIR"));
    }
    let dir = context.path(0);
    if !dir.is_dir() {
        let why = if dir.exists() { "is not a directory" } else { "does not exist" };
        let text = format!("{} {why}; make it first: mkdir -p {0}", dir.display());
        return Err(Failure::error(text));
    }
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Failure::error(format!("{path}: {}", crate::go::reason(&error)))
    };
    let binary = std::env::current_exe().and_then(fs::canonicalize);
    let binary = binary.map_err(failed(Path::new("/proc/self/exe")))?;
    let mut links = Vec::new();
    for name in NAMES {
        let path = dir.join(name);
        let found = look(&path, &binary).map_err(failed(&path))?;
        links.push((path, found));
    }
    let forces = context.flags.bool("force");
    let others = links.iter().filter(|(path, found)| {
        *found == Found::Other && (!forces || (path.is_dir() && !path.is_symlink()))
    });
    let others: Vec<String> = others.map(|(path, _)| path.display().to_string()).collect();
    if !others.is_empty() {
        let text = format!(
            "{} is there already and not a link to this binary; nothing was changed. --force \
             replaces files, and never directories",
            others.join(", ")
        );
        return Err(Failure::new(Exit::Error, text));
    }
    let replaced = links.iter().filter(|(_, found)| *found == Found::Other);
    let replaced: Vec<String> = replaced.map(|(path, _)| path.display().to_string()).collect();
    if !replaced.is_empty() {
        let what = format!("This replaces {}, which is not kept.", replaced.join(", "));
        confirm::confirm(context, what)?;
    }
    for (path, found) in &links {
        match found {
            Found::Ours => {
                context.printer.line(format!("{} is there already", path.display()));
                continue;
            }
            Found::Nothing => symlink(&binary, path).map_err(failed(path))?,
            Found::Other => replace(&binary, path).map_err(failed(path))?,
        }
        context.printer.line(format!("{} -> {}", path.display(), binary.display()));
    }
    context.printer.line(advice(dir));
    Ok(())
}

fn look(path: &Path, binary: &Path) -> io::Result<Found> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        metadata => metadata?,
    };
    // This binary itself may have one of the names: a link in its place would lead to itself.
    let is_ours = fs::canonicalize(path).is_ok_and(|path| path == binary);
    Ok(if is_ours { Found::Ours } else { Found::Other })
}

/// Puts a link in the place of a file, so that at no moment there is neither.
fn replace(binary: &Path, path: &Path) -> io::Result<()> {
    let temporary = path.with_extension(format!("rusd-link-{}", std::process::id()));
    symlink(binary, &temporary)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// Whether a shell finds the links.
fn advice(dir: &Path) -> String {
    let own = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let is_own = |dir: &&PathBuf| fs::canonicalize(dir).is_ok_and(|dir| dir == own);
    let before: Vec<&PathBuf> = dirs.iter().take_while(|dir| !is_own(dir)).collect();
    if before.len() == dirs.len() {
        let own = own.display();
        return format!("{own} is not in PATH; add it: export PATH=\"{own}:$PATH\"");
    }
    let hides = |name: &str| before.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    match NAMES.into_iter().find_map(hides) {
        Some(other) => format!("{} is in PATH, behind {}", own.display(), other.display()),
        None => format!("{} is in PATH", own.display()),
    }
}
