//! The Helm chart: what it names, and what it renders where helm is at hand.

use std::collections::BTreeSet;

use yaml_rust2::{Yaml, YamlLoader};

use super::files::{
    client_flags, files_below, matches, package, read, server_flags, text_of, tool,
};

const CHART: &str = "docs/deploy/helm/rusd";

#[test]
fn each_flag_and_setting_is_one_of_the_binary() {
    let text = read(&format!("{CHART}/templates/statefulset.yaml"));
    let (join, serve) = text.split_once("\n      containers:\n").unwrap();
    let (_, join) = join.split_once("initContainers:").unwrap();
    for (name, text, flags) in
        [("join", join, client_flags(&["join"])), ("serve", serve, server_flags())]
    {
        let used = matches(r"(?m)^\s+- --([a-z-]+)(?:=|$)", text);
        assert!(used.len() > 3, "{name}: {used:?}");
        let unknown: Vec<_> = used.difference(&flags).collect();
        assert!(unknown.is_empty(), "rusd {name} has no {unknown:?}");
    }
    let values = &YamlLoader::load_from_str(&read(&format!("{CHART}/values.yaml"))).unwrap()[0];
    let Yaml::Hash(settings) = &values["settings"] else { panic!("{values:?}") };
    let flags = server_flags();
    for name in settings.keys() {
        assert!(flags.contains(name.as_str().unwrap()), "rusd serve has no {name:?}");
    }
}

/// A value that nothing reads is a promise that nobody keeps; one that has no schema cannot be set.
#[test]
fn each_value_is_read_and_has_a_schema() {
    let values = &YamlLoader::load_from_str(&read(&format!("{CHART}/values.yaml"))).unwrap()[0];
    let schema: serde_json::Value =
        serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    let templates: String = files_below(&format!("{CHART}/templates"))
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let Yaml::Hash(top) = values else { panic!("{values:?}") };
    for (name, value) in top {
        let name = name.as_str().unwrap();
        let own = &schema["properties"][name];
        assert!(own.is_object(), "{name} has no schema");
        assert!(templates.contains(&format!(".Values.{name}")), "nothing reads {name}");
        let Yaml::Hash(inner) = value else { continue };
        for inner in inner.keys().map(|inner| inner.as_str().unwrap()) {
            if own["additionalProperties"] == serde_json::Value::Bool(false) {
                assert!(own["properties"][inner].is_object(), "{name}.{inner} has no schema");
            }
        }
    }
}

/// A set that is scaled to zero for a moment comes back with its data.
#[test]
fn volumes_stay_unless_somebody_says_otherwise() {
    let values = &YamlLoader::load_from_str(&read(&format!("{CHART}/values.yaml"))).unwrap()[0];
    for when in ["whenDeleted", "whenScaled"] {
        assert_eq!(values["persistence"]["retention"][when].as_str(), Some("Retain"), "{when}");
    }
}

/// What the chart renders with these settings.
fn rendered(settings: &[&str]) -> Option<Vec<Yaml>> {
    let mut helm = tool("helm")?;
    helm.args(["template", "kv"]).arg(package().join(CHART));
    helm.args(["--namespace", "infra", "--kube-version", "1.31.0"]);
    for setting in settings {
        match setting.strip_prefix("--") {
            Some(_) => helm.arg(setting),
            None => helm.args(["--set", setting]),
        };
    }
    let output = helm.output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    Some(YamlLoader::load_from_str(std::str::from_utf8(&output.stdout).unwrap()).unwrap())
}

fn of_kind<'a>(documents: &'a [Yaml], kind: &str) -> &'a Yaml {
    documents.iter().find(|it| it["kind"].as_str() == Some(kind)).unwrap()
}

fn words(list: &Yaml) -> BTreeSet<&str> {
    list.as_vec().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

#[test]
fn the_first_cluster_is_started_by_an_installation_alone() {
    let Some(documents) = rendered(&["replicaCount=5"]) else { return };
    let pod = &of_kind(&documents, "StatefulSet")["spec"]["template"]["spec"];
    let (join, serve) = (&pod["initContainers"][0], &pod["containers"][0]);
    let member = |number: u32| {
        let name = format!("kv-rusd-{number}");
        format!("{name}=http://{name}.kv-rusd-headless.infra.svc.cluster.local:2380")
    };
    let first = format!("--initial-cluster={}", [0, 1, 2].map(member).join(","));
    assert!(words(&join["args"]).contains(first.as_str()), "{join:?}");
    assert!(words(&serve["args"]).contains(first.as_str()), "{serve:?}");
    let endpoints =
        words(&join["args"]).into_iter().find(|it| it.starts_with("--endpoints=")).unwrap();
    assert_eq!(endpoints.matches(",").count(), 4, "{endpoints}");

    for settings in [["--is-upgrade"], ["cluster.bootstrap=never"]] {
        let documents = rendered(&settings).unwrap();
        let pod = &of_kind(&documents, "StatefulSet")["spec"]["template"]["spec"];
        let args = words(&pod["initContainers"][0]["args"]);
        assert!(!args.iter().any(|it| it.starts_with("--initial-cluster")), "{args:?}");
    }
    let budget = of_kind(&documents, "PodDisruptionBudget");
    assert_eq!(budget["spec"]["maxUnavailable"].as_i64(), Some(1));
}

#[test]
fn secrets_are_mounted_where_the_flags_look_for_them() {
    let settings = [
        "tls.client.enabled=true",
        "tls.client.secretName=client",
        "tls.peer.enabled=true",
        "tls.peer.secretName=peer",
        "auth.secretName=root",
    ];
    let Some(documents) = rendered(&settings) else { return };
    let pod = &of_kind(&documents, "StatefulSet")["spec"]["template"]["spec"];
    let serve = &pod["containers"][0];
    let mounts: Vec<_> = serve["volumeMounts"].as_vec().unwrap().iter().collect();
    let mounted = |path: &str| {
        mounts.iter().any(|mount| path.starts_with(mount["mountPath"].as_str().unwrap()))
    };
    let args = words(&serve["args"]);
    let files: Vec<_> = args.iter().filter_map(|it| it.split_once("-file=")).collect();
    assert_eq!(files.len(), 6, "{args:?}");
    for (flag, path) in files {
        assert!(mounted(path), "{flag}-file={path} is in no volume");
    }
    assert!(args.iter().all(|it| !it.contains("http://") || it.contains("metrics")), "{args:?}");
    // The password is for those who change the cluster, not for the server.
    let environment = |container: &Yaml| -> BTreeSet<String> {
        let variables = container["env"].as_vec().unwrap().iter();
        variables.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(environment(&pod["initContainers"][0]).contains("ETCDCTL_PASSWORD"));
    assert!(!environment(serve).contains("ETCDCTL_PASSWORD"));
}

#[test]
fn helm_finds_nothing_to_complain_of() {
    let Some(mut helm) = tool("helm") else { return };
    let output = helm.args(["lint", "--strict"]).arg(package().join(CHART)).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    for wrong in ["foo=1", "tls.peer.enabled=true", "settings.name=x", "cluster.bootstrap=yes"] {
        let mut helm = tool("helm").unwrap();
        helm.args(["template", "kv", "--kube-version", "1.31.0", "--set", wrong]);
        let output = helm.arg(package().join(CHART)).output().unwrap();
        assert!(!output.status.success(), "{wrong} is taken");
    }
}
