//! /health, /livez, /readyz and their single checks.

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use super::{Answer, Http, TEXT, error, typed};
use crate::metrics;
use crate::node::alarm_name;
use crate::pb::AlarmType;
use crate::rpc;

/// A probe: `/health`, or some of the named checks of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Health,
    Live(&'static [&'static str]),
    Ready(&'static [&'static str]),
}

const LIVE: &[&str] = &["serializable_read"];
const READY: &[&str] =
    &["data_corruption", "serializable_read", "linearizable_read", "non_learner"];

impl Check {
    pub(super) fn of(path: &str) -> Option<Self> {
        let one = |checks: &'static [&'static str], name: &str| {
            let at = checks.iter().position(|check| *check == name)?;
            Some(&checks[at..=at])
        };
        match path {
            "/health" => Some(Self::Health),
            "/livez" => Some(Self::Live(LIVE)),
            "/readyz" => Some(Self::Ready(READY)),
            _ => match path.strip_prefix("/livez/") {
                Some(name) => one(LIVE, name).map(Self::Live),
                None => one(READY, path.strip_prefix("/readyz/")?).map(Self::Ready),
            },
        }
    }
}

/// Values of a query parameter; a bare name has the empty value.
fn query<'a>(parts: &'a Parts, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = parts.uri.query().unwrap_or("").split('&');
    pairs.filter_map(move |pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

impl Http {
    pub(super) async fn health(&self, check: Check, parts: &Parts) -> Answer {
        match check {
            Check::Health => self.old_health(parts).await,
            Check::Live(checks) => self.checks("livez", checks, parts).await,
            Check::Ready(checks) => self.checks("readyz", checks, parts).await,
        }
    }

    async fn old_health(&self, parts: &Parts) -> Answer {
        let excluded: Vec<&str> = query(parts, "exclude").collect();
        let serializable = query(parts, "serializable").next() == Some("true");
        let reason = self.reason(&excluded, serializable).await;
        let healthy = reason.is_none();
        let text = format!(
            r#"{{"health":"{healthy}","reason":{}}}"#,
            serde_json::to_string(reason.as_deref().unwrap_or("")).unwrap_or_default()
        );
        if healthy {
            metrics::health_success().inc();
            return typed(StatusCode::OK, TEXT, &text);
        }
        metrics::health_failures().inc();
        tracing::warn!(output = text.as_str(), "status-code" = 503, "/health error");
        error(StatusCode::SERVICE_UNAVAILABLE, &text)
    }

    /// Why this member is not healthy; None if it is.
    async fn reason(&self, excluded: &[&str], serializable: bool) -> Option<String> {
        for alarm in self.node.alarms() {
            let name = alarm_name(alarm.alarm);
            if !excluded.contains(&name) {
                tracing::warn!(alarm = name, "serving /health false due to an alarm");
                return Some(format!("ALARM {name}"));
            }
        }
        if !serializable && *self.node.leader().borrow() == 0 {
            tracing::warn!("serving /health false; no leader");
            return Some("RAFT NO LEADER".into());
        }
        let read = tokio::time::timeout(self.config.request_timeout, self.read(serializable)).await;
        match read {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(format!("RANGE ERROR:{why}")),
            Err(_) => Some("RANGE ERROR:context deadline exceeded".into()),
        }
    }

    async fn read(&self, serializable: bool) -> Result<(), String> {
        let probed = self.node.probe(serializable).await;
        probed.map_err(|error| rpc::status(error).message().to_owned())
    }

    async fn checks(&self, kind: &str, checks: &[&str], parts: &Parts) -> Answer {
        // A check that is asked for by its own path cannot be excluded.
        let excluded: Vec<&str> =
            if checks.len() > 1 || kind == "livez" && parts.uri.path() == "/livez" {
                query(parts, "exclude").collect()
            } else {
                Vec::new()
            };
        let (mut report, mut failed) = (String::new(), false);
        for name in checks.iter().filter(|name| !excluded.contains(name)) {
            let result = self.check(name).await;
            metrics::health_checked(kind, name, result.is_ok());
            match result {
                Ok(()) => report.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    failed = true;
                    report.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        if failed {
            let path = parts.uri.path();
            tracing::error!(
                path,
                reason = report.as_str(),
                "status-code" = 503,
                "Health check error"
            );
            return error(StatusCode::SERVICE_UNAVAILABLE, &report);
        }
        let verbose = query(parts, "verbose").next().is_some();
        let text = if verbose { format!("{report}ok\n") } else { "ok\n".to_owned() };
        let mut answer = typed(StatusCode::OK, TEXT, &text);
        answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn check(&self, name: &str) -> Result<(), String> {
        match name {
            "data_corruption" => {
                let corrupt =
                    self.node.alarms().iter().any(|alarm| alarm.alarm == AlarmType::Corrupt as i32);
                if corrupt { Err("alarm activated: CORRUPT".into()) } else { Ok(()) }
            }
            "serializable_read" => self.read(true).await,
            "linearizable_read" => self.read(false).await,
            _ if self.node.status().is_learner => Err("not supported for learner".into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_probes_and_single_checks() {
        assert_eq!(Check::of("/readyz"), Some(Check::Ready(READY)));
        assert_eq!(Check::of("/readyz/non_learner"), Some(Check::Ready(&["non_learner"])));
        assert_eq!(Check::of("/livez/serializable_read"), Some(Check::Live(LIVE)));
        for path in ["/readyz/none", "/livez/non_learner", "/readyz/", "/healthz", "/livez/x/y"] {
            assert_eq!(Check::of(path), None, "{path}");
        }
    }

    #[test]
    fn queries_repeat_and_may_be_bare() {
        let request = http::Request::get("/x?exclude=A&exclude=B&verbose&exclude2=C");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(query(&parts, "exclude").collect::<Vec<_>>(), ["A", "B"]);
        assert_eq!(query(&parts, "verbose").collect::<Vec<_>>(), [""]);
        assert_eq!(query(&parts, "none").count(), 0);
    }
}
