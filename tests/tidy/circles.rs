//! Files of one room, or of one test program, use each other in one direction: whoever reads a file
//! then knows which others to read first. A module and those inside it are one subject.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::paths;
use super::sources::{Source, check, sources};

/// A module's path, such as `["raft", "log", "write"]`.
type Module = Vec<String>;

/// Each module's names that come from modules inside it, and which.
type Exports = BTreeMap<Module, BTreeMap<String, Module>>;

#[test]
fn files_use_each_other_in_one_direction() {
    let mut findings = circles(&sources(&["src"]), "src/");
    let tests = sources(&["tests"]);
    for program in [
        "auth", "clients", "cluster", "crash", "full", "hostile", "packages", "server", "sim",
        "tidy",
    ] {
        let root = format!("tests/{program}/");
        let files = tests.iter().filter(|source| source.path.starts_with(&root));
        let files: Vec<Source> = files.map(Source::clone).collect();
        findings.extend(circles(&files, &root));
    }
    check("files use each other in one direction", &findings);
}

#[test]
fn circles_are_found() {
    let file = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let found = circles(
        &[
            file("src/a/mod.rs", "mod b;\nmod c;\nmod d;\npub use self::b::{B, C as D};\n"),
            file("src/a/b.rs", "use super::{c::{Other, Some}, d::D};\nuse super::B;\n"),
            file("src/a/c.rs", "fn f() { super::D::new(); }\n"),
            file(
                "src/a/d.rs",
                "use super::Unknown;\n#[cfg(test)]\nmod tests {\n    use super::b;\n}\n",
            ),
        ],
        "src/",
    );
    assert_eq!(found, ["src/: a::b uses a::c, a::c uses a::b"]);
}

fn circles(files: &[Source], root: &str) -> Vec<String> {
    let files: BTreeMap<Module, &Source> = files
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (module(&source.path, root), source))
        .collect();
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let paths: BTreeMap<&Module, Vec<Module>> =
        files.iter().map(|(module, source)| (module, paths(&source.shipped()))).collect();
    let mut exports = Exports::new();
    for (module, paths) in &paths {
        for path in paths {
            let Some((found, _)) = resolve(module, path, &modules) else { continue };
            let is_inside = found.len() > module.len() && found.starts_with(module);
            if let (true, Some(name)) = (is_inside, path.last()) {
                exports.entry((*module).clone()).or_default().insert(name.clone(), found);
            }
        }
    }
    let mut uses: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, paths) in &paths {
        let found = paths.iter().filter_map(|path| home(module, path, &modules, &exports));
        let found = found.filter(|found| !found.starts_with(module) && !module.starts_with(found));
        uses.insert(module, found.collect());
    }
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for module in &modules {
        let Some(circle) = way_back(module, &uses) else { continue };
        if circle.iter().all(|member| told.insert(member.clone())) {
            let next = circle.iter().cycle().skip(1);
            let steps = circle.iter().zip(next);
            let steps = steps.map(|(a, b)| format!("{} uses {}", a.join("::"), b.join("::")));
            findings.push(format!("{root}: {}", steps.collect::<Vec<_>>().join(", ")));
        }
    }
    findings
}

/// The shortest circle through a module.
fn way_back(from: &Module, uses: &BTreeMap<&Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut ways = vec![vec![from.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| uses.get(last)).into_iter().flatten() {
                if next == from {
                    return Some(way);
                }
                if seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

fn module(path: &str, root: &str) -> Module {
    let path = path.strip_prefix(root).unwrap().trim_end_matches(".rs");
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    module.pop_if(|last| ["mod", "main", "lib"].contains(&last.as_str()));
    module
}

/// The file that declares what a path names, through what modules show of those inside them.
fn home(
    from: &Module,
    path: &Module,
    modules: &BTreeSet<Module>,
    exports: &Exports,
) -> Option<Module> {
    let (mut found, mut rest) = resolve(from, path, modules)?;
    while let Some(inner) = rest.first().and_then(|name| exports.get(&found)?.get(name)) {
        // A module that shows another under its own name would lead to itself.
        if *inner == found {
            break;
        }
        found = inner.clone();
        rest = &rest[rest.len()..];
    }
    Some(found)
}

/// The innermost module of a path, and what is left of the path.
fn resolve<'a>(
    from: &Module,
    path: &'a [String],
    modules: &BTreeSet<Module>,
) -> Option<(Module, &'a [String])> {
    let mut found = from.clone();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => (found, rest) = (Module::new(), &rest[1..]),
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                found.pop()?;
                rest = &rest[1..];
            }
        }
        child => {
            let child = [found.clone(), vec![child.to_owned()]].concat();
            modules.contains(&child).then_some(())?;
        }
    }
    while let Some(name) = rest.first() {
        let inner = [found.clone(), vec![name.clone()]].concat();
        if !modules.contains(&inner) {
            break;
        }
        (found, rest) = (inner, &rest[1..]);
    }
    Some((found, rest))
}
