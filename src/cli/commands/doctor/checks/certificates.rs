//! Certificates by the days that are left.

use super::super::facts::Facts;
use super::super::finding::{Finding, Section, Severity};
use crate::limits::{CERTIFICATE_DAYS_LEFT_MIN, DOCTOR_CERTIFICATE_ERROR_DAYS};

pub(super) fn ends(facts: &Facts) -> Vec<Finding> {
    let found = facts.certificates.iter().filter_map(|certificate| {
        let left = certificate.ends.saturating_sub(facts.now);
        let days = left.div_euclid(86_400);
        if days >= CERTIFICATE_DAYS_LEFT_MIN {
            return None;
        }
        let is_near = days < DOCTOR_CERTIFICATE_ERROR_DAYS;
        let severity = if is_near { Severity::Error } else { Severity::Warning };
        let cause = match left {
            left if left < 0 => format!("the certificate ended {} days ago", -days - 1),
            _ => format!("the certificate ends in {days} days"),
        };
        let command = "replace the file: rusd cert gen makes new ones; members read it without a \
                       restart";
        let section = Section::CertificateExpires;
        Some(Finding::new(severity, certificate.what.clone(), cause, command, section))
    });
    found.collect()
}
