//! Dead code that a compiler does not report because it is `pub`: names that are declared and stand
//! nowhere else.

use std::collections::BTreeMap;

use super::sources::{check, sources};

/// What declares a name, as the word before it.
const DECLARING: [&str; 7] = ["fn", "struct", "enum", "trait", "type", "const", "static"];

#[test]
fn what_is_declared_is_named_elsewhere() {
    let sources = sources(&["src", "tests"]);
    let code: Vec<_> = sources.iter().map(|source| (&source.path, source.code())).collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, text) in &code {
        for word in words(text) {
            *uses.entry(word).or_default() += 1;
        }
    }
    let mut findings = Vec::new();
    for (path, text) in code.iter().filter(|(path, _)| path.starts_with("src/")) {
        for line in text.lines().filter(|line| line.trim_start().starts_with("pub")) {
            let all: Vec<&str> = words(line).collect();
            // Of `const fn name` the last pair.
            let declares = |pair: &&[&str]| DECLARING.contains(&pair[0]) && pair[1] != "fn";
            if let Some(pair) = all.windows(2).find(declares)
                && uses.get(pair[1]) == Some(&1)
            {
                findings.push(format!("{path}: {}", pair[1]));
            }
        }
    }
    check("declared as pub and named nowhere else", &findings);
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_apart = |letter: char| !letter.is_alphanumeric() && letter != '_';
    text.split(is_apart).filter(|word| !word.is_empty())
}
