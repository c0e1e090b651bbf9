//! Links between the pages, and from them to files, lead somewhere.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\]\(([^)\s]+)\)").unwrap());

/// The links of a page that lead nowhere.
pub fn broken(package: &Path, page: &str) -> Vec<String> {
    let text = fs::read_to_string(package.join(page)).unwrap();
    let here = package.join(page);
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for link in LINK.captures_iter(line).map(|found| found[1].to_owned()) {
            if !link.contains("://") && !leads_somewhere(&here, &link) {
                broken.push(format!("{page}:{}: {link} leads nowhere", at + 1));
            }
        }
    }
    broken
}

fn leads_somewhere(here: &Path, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() { here.to_owned() } else { here.with_file_name("").join(path) };
    let Ok(text) = fs::read_to_string(&target) else { return target.is_dir() && anchor.is_empty() };
    anchor.is_empty() || has_title(&text, anchor)
}

fn has_title(text: &str, anchor: &str) -> bool {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles.map(|title| slug(title.trim_start_matches('#'))).any(|title| title == anchor)
}

/// The anchor of a title, as GitHub makes it.
pub fn slug(title: &str) -> String {
    let kept = title.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
