//! Members by their names, as `--initial-cluster` and a discovery service write them.

use std::collections::BTreeMap;

use super::url::Url;

/// Names and peer URLs.
pub(super) type MemberUrls = Vec<(String, Vec<String>)>;

/// Reads `name=url,name=url`; a name may stand there more than once.
pub(super) fn parse(list: &str) -> Result<MemberUrls, String> {
    let mut members: BTreeMap<&str, Vec<Url>> = BTreeMap::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        members.entry(name).or_default().push(Url::parse(url)?);
    }
    let texts = |mut urls: Vec<Url>| {
        urls.sort();
        urls.iter().map(Url::to_string).collect()
    };
    Ok(members.into_iter().map(|(name, urls)| (name.to_owned(), texts(urls))).collect())
}

/// A list as etcd prints it, sorted.
pub(super) fn text_of(members: &[(String, Vec<String>)]) -> String {
    let pairs =
        members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}
