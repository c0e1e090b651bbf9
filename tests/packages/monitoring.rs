//! Rules and dashboard: each metric they use is one that the binary exports, and each alert leads to
//! a section of the handbook.

use std::collections::BTreeSet;

use yaml_rust2::{Yaml, YamlLoader};

use super::files::{files_below, matches, package, read, text_of, tool};

/// Families that Prometheus itself makes.
const OF_PROMETHEUS: [&str; 1] = ["up"];
/// Words of expressions that look like families.
const FUNCTIONS: &[&str] = &[
    "count_values",
    "group_left",
    "group_right",
    "histogram_quantile",
    "label_values",
    "last_over_time",
    "max_over_time",
    "predict_linear",
];

/// Names of families in the sources that make them.
fn exported() -> BTreeSet<String> {
    let sources = files_below("src/metrics");
    let texts = sources.iter().map(|path| std::fs::read_to_string(path).unwrap());
    let names = texts.flat_map(|text| matches(r#""([a-z]+_[a-z_]+)""#, &text));
    let names: BTreeSet<_> = names.collect();
    assert!(names.contains("etcd_server_has_leader") && names.contains("os_fd_used"));
    names
}

/// Words of an expression that name a family or a recorded rule, with the ends of histograms cut off.
fn used(expression: &str) -> BTreeSet<String> {
    let mut text = expression.to_owned();
    for (pattern, instead) in [
        // Texts, windows, labels to match, and labels to group by.
        (r#""[^"]*""#, ""),
        (r"\[[^\]]*\]", ""),
        (r"\{[^}]*\}", " "),
        (r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " "),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
    }
    let words = matches(r"([a-z][a-z0-9]*(?:[_:][A-Za-z0-9_:]+)+|\bup\b)", &text);
    let cut = |word: String| word.strip_suffix("_bucket").map_or(word.clone(), str::to_owned);
    words.into_iter().filter(|word| !FUNCTIONS.contains(&word.as_str())).map(cut).collect()
}

struct Rule {
    name: String,
    expression: String,
    yaml: Yaml,
}

fn rules() -> Vec<Rule> {
    let document = &YamlLoader::load_from_str(&read("docs/monitoring/rules.yaml")).unwrap()[0];
    let groups = document["groups"].as_vec().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_vec().unwrap());
    rules
        .map(|rule| Rule {
            name: rule["alert"].as_str().or(rule["record"].as_str()).unwrap().to_owned(),
            expression: rule["expr"].as_str().unwrap().to_owned(),
            yaml: rule.clone(),
        })
        .collect()
}

#[test]
fn each_metric_of_the_rules_is_exported() {
    let rules = rules();
    let recorded: BTreeSet<_> =
        rules.iter().filter(|it| it.name.contains(':')).map(|it| it.name.clone()).collect();
    assert!(recorded.len() > 5 && rules.len() - recorded.len() > 20);
    let exported = exported();
    for rule in &rules {
        let names = used(&rule.expression);
        assert!(!names.is_empty(), "{}", rule.name);
        for name in names.iter().filter(|name| !OF_PROMETHEUS.contains(&name.as_str())) {
            let is_known = exported.contains(name) || recorded.contains(name);
            assert!(is_known, "{}: there is no {name}", rule.name);
        }
    }
}

#[test]
fn each_alert_leads_to_the_handbook() {
    let handbook = std::fs::read_to_string(package().join("docs/handbook.md"));
    let titles = handbook.ok().map(|text| matches(r"(?m)^## (.+)$", &text));
    let mut names = BTreeSet::new();
    for alert in rules().iter().filter(|it| !it.name.contains(':')) {
        let notes = &alert.yaml["annotations"];
        let text = |name: &str| {
            let text = notes[name].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{} has no {name}", alert.name);
            text
        };
        let title = text("handbook");
        let slug = title.to_lowercase().replace(' ', "-");
        assert_eq!(text("runbook_url"), format!("docs/handbook.md#{slug}"), "{}", alert.name);
        if let Some(titles) = &titles {
            assert!(titles.contains(title), "{}: the handbook has no {title:?}", alert.name);
        }
        text("summary");
        text("description");
        let severity = alert.yaml["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("warning" | "critical")), "{}", alert.name);
        assert!(names.insert(alert.name.clone()), "two alerts are {}", alert.name);
    }
}

#[test]
fn each_metric_of_the_dashboard_is_exported() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("docs/monitoring/dashboard.json")).unwrap();
    let exported = exported();
    let mut ids = BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["query"]["query"].as_str() {
            expressions.push(query.to_owned());
        }
    }
    assert!(expressions.len() > 30);
    for expression in &expressions {
        for name in used(expression) {
            let is_known = exported.contains(&name) || OF_PROMETHEUS.contains(&name.as_str());
            assert!(is_known, "there is no {name} in {expression}");
        }
    }
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let Some(mut promtool) = tool("promtool") else { return };
    let directory = package().join("docs/monitoring");
    let output = promtool.args(["check", "rules", "rules.yaml"]).current_dir(&directory).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    let mut promtool = tool("promtool").unwrap();
    let output = promtool.args(["test", "rules", "rules_test.yaml"]).current_dir(&directory);
    let output = output.output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}
