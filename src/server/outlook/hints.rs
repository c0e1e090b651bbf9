//! What to do, where a line of the outlook has more than one cause.

/// What to do where enough voters are reached and none of them leads this member. It does not know
/// whether they lead each other.
pub(super) fn without_leader(is_learner: bool) -> &'static str {
    if is_learner {
        "if `rusd endpoint status --cluster` shows a leader, this learner has lost entries that it \
         had before: remove it and add it anew; see the handbook, \"Learner not promoted\""
    } else {
        "if `rusd endpoint status --cluster` shows a leader, this member has lost entries that it \
         had before; see the handbook, \"Lost directory\". If not, the voters do not agree on one; \
         see the handbook, \"No leader\""
    }
}

/// Where the handbook says what to do about the last error of a peer's connection.
pub(super) fn why_unreachable(failure: &str) -> &'static str {
    const BY_FAILURE: [(&str, &str); 6] = [
        (
            "cluster ID mismatch",
            "this member and that one are of different clusters; see the handbook, \"Cluster id \
             mismatch\"",
        ),
        (
            "has expired or is not yet valid",
            "check the certificates and the clocks of both; see the handbook, \"Certificate expires\"",
        ),
        (
            "expired certificate",
            "it takes this member's certificate for expired or not valid yet; see the handbook, \
             \"Certificate expires\"",
        ),
        (
            "unknown authority",
            "its certificate is of an authority that this member does not know; see the handbook, \
             \"Unknown authority\"",
        ),
        (
            "unknown certificate authority",
            "it does not know the authority of this member's certificate; see the handbook, \
             \"Unknown authority\"",
        ),
        ("certificate required", "see the handbook, \"Certificate required\""),
    ];
    let known = BY_FAILURE.iter().find(|(part, _)| failure.contains(part));
    known.map_or("see the handbook, \"Member unreachable\"", |(_, hint)| hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_failure_leads_to_its_section() {
        for (failure, section) in [
            ("it answered 412 Precondition Failed: cluster ID mismatch", "Cluster id mismatch"),
            (
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
                "Certificate expires",
            ),
            ("remote error: tls: expired certificate", "Certificate expires"),
            ("x509: certificate signed by unknown authority", "Unknown authority"),
            ("connection refused", "Member unreachable"),
        ] {
            let hint = why_unreachable(failure);
            assert!(hint.ends_with(&format!("see the handbook, \"{section}\"")), "{hint}");
        }
    }

    #[test]
    fn a_learner_is_not_sent_where_voters_are() {
        assert!(without_leader(true).contains("Learner not promoted"));
        assert!(without_leader(false).contains("Lost directory"));
    }
}
