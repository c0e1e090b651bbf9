//! The message and the fields of a line, each value as JSON.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};

use super::FIELDS;

/// How fields are named that etcd's lines do not have: these are for the name rusd alone.
const OWN: &str = "rusd.";

#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    /// Names, and values as JSON.
    pub(super) pairs: Vec<(String, String)>,
}

impl Fields {
    /// Leaves rusd's own fields out, or takes their prefix off.
    pub(super) fn settle(&mut self, has_own: bool) {
        if !has_own {
            self.pairs.retain(|(name, _)| !name.starts_with(OWN));
        }
        for (name, _) in &mut self.pairs {
            if let Some(plain) = name.strip_prefix(OWN) {
                *name = plain.to_owned();
            }
        }
    }

    /// The fields as the inside of a JSON object.
    pub(super) fn text(&self, between: &str, after_name: &str) -> String {
        let mut text = String::new();
        for (name, value) in &self.pairs {
            if !text.is_empty() {
                text.push_str(between);
            }
            quote(&mut text, name);
            text.push_str(after_name);
            text.push_str(value);
        }
        text
    }

    /// The text of a field that is a string.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let (_, value) = self.pairs.iter().find(|(found, _)| found == name)?;
        serde_json::from_str(value).ok()
    }

    pub(super) fn raw(&mut self, name: &str, value: &str) {
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn string(&mut self, name: &str, value: &str) {
        let mut quoted = String::with_capacity(value.len() + 2);
        quote(&mut quoted, value);
        self.pairs.push((name.to_owned(), quoted));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else if field.name() == FIELDS {
            let fields = serde_json::from_str::<Vec<(String, Value)>>(&text);
            for (name, value) in fields.unwrap_or_default() {
                self.raw(&name, &value.to_string());
            }
        } else if let (true, Ok(list)) =
            (text.starts_with(['[', '"']), serde_json::from_str::<Value>(&text))
        {
            // The debug form of a list of strings or numbers is JSON already.
            self.raw(field.name(), &list.to_string());
        } else {
            self.string(field.name(), &text);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.string(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.raw(field.name(), &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.raw(field.name(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field.name(), if value { "true" } else { "false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.raw(field.name(), &value.to_string());
        } else {
            self.string(field.name(), &value.to_string());
        }
    }
}

pub(super) fn quote(out: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}
