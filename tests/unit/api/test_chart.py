"""The chart as real Helm renders it: least rights, restricted pods, settings that the operator reads."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, render_chart
from codetune_operator.cluster.kinds import LEASE
from codetune_operator.cluster.leases import LEASE_NAME
from codetune_operator.main import ENV_POD_IP, LIVENESS_PORT, METRICS_PORT
from codetune_operator.settings import parse_settings
from helm_python import HelmError, lint

REPOSITORY = Path(__file__).resolve().parents[3]
Objects = list[dict[str, Any]]


def find(objects: Objects, kind: str, name: str = "") -> list[dict[str, Any]]:
    return [found for found in objects if found["kind"] == kind and name in found["metadata"]["name"]]


def rules(objects: Objects) -> list[dict[str, Any]]:
    return [rule for found in objects if found["kind"] in ("Role", "ClusterRole") for rule in found["rules"]]


@pytest.fixture(scope="module")
def default() -> Objects:
    return render_chart({})


def test_helm_finds_nothing_wrong() -> None:
    assert not lint(str(CHART))["errors"]


def test_no_rule_has_a_wildcard(default: Objects) -> None:
    values = [value for rule in rules(default) for values in rule.values() for value in values]
    assert {"codetune.dev", "finetunes", "get"} < set(values)
    assert not [value for value in values if "*" in value]


def test_secrets_are_never_listed_and_only_the_operators_own_is_read(default: Objects) -> None:
    about = [rule for rule in rules(default) if "secrets" in rule.get("resources", [])]
    assert {verb for rule in about for verb in rule["verbs"]} & {"list", "watch", "update"} == set()
    assert [rule["resourceNames"] for rule in about if "get" in rule["verbs"]] == [["codetune-operator-key"]]


def test_the_operator_has_no_right_that_it_does_not_use(default: Objects) -> None:
    (role,) = find(default, "ClusterRole", "operator")
    verbs = {resource: set(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}
    seen = {"get", "list", "watch"}
    assert verbs["configmaps"] == verbs["secrets"] == {"create", "patch", "delete"}
    assert verbs["persistentvolumeclaims"] == {*seen, "create", "patch"}
    for plural in ("projects", "finetunes", "modeldeployments", "teams"):
        assert verbs[plural] == {*seen, "patch"}
        assert (verbs[f"{plural}/status"], verbs[f"{plural}/finalizers"]) == ({"get", "patch"}, {"update"})
    assert verbs["pods"] == verbs["nodes"] == verbs["namespaces"] == seen
    assert verbs["pods/log"] == {"get"}
    assert verbs["events"] == {"create", "patch"}


def test_two_versions_of_the_operator_never_run_at_once(default: Objects) -> None:
    (deployment,) = find(default, "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


def test_the_operators_pod_meets_the_restricted_standard(default: Objects) -> None:
    (deployment,) = find(default, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not container["image"].endswith(":latest")


def test_the_operators_probes_and_scrapes_are_answered_at_the_pods_own_address(default: Objects) -> None:
    (deployment,) = find(default, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": ENV_POD_IP, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    assert not [argument for argument in container["args"] if argument.startswith(("--liveness", "--metrics"))]
    assert container["ports"] == [
        {"name": "health", "containerPort": LIVENESS_PORT},
        {"name": "metrics", "containerPort": METRICS_PORT},
    ]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}


def test_one_operator_needs_no_lease(default: Objects) -> None:
    (container,) = find(default, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--settings=/etc/codetune/settings.yaml"]
    assert not find(default, "Role", "lease") + find(default, "RoleBinding", "lease")
    assert "leases" not in {resource for rule in rules(default) for resource in rule["resources"]}


def test_of_several_operators_each_has_a_name_and_may_hold_the_lease() -> None:
    objects = render_chart({"replicas": 2})
    (container,) = find(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    assert "--elect=$(POD_NAME)" in container["args"]
    name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert name in container["env"]
    (role,) = find(objects, "Role", "lease")
    assert role["metadata"]["namespace"] == "codetune-system"
    group = {"apiGroups": [LEASE.group], "resources": [LEASE.plural]}
    assert role["rules"] == [
        {**group, "resourceNames": [LEASE_NAME], "verbs": ["get", "update"]},
        {**group, "verbs": ["create"]},
    ]
    (binding,) = find(objects, "RoleBinding", "lease")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == find(objects, "RoleBinding", "key")[0]["subjects"]


def test_the_operator_reads_the_settings_that_are_rendered() -> None:
    objects = render_chart({"settings": {"fileRoot": "/files", "endpoint": "ClusterIP"}, "watchNamespaces": ["a"]})
    settings = parse_settings(find(objects, "ConfigMap")[0]["data"]["settings.yaml"])
    assert (settings.file_root, settings.endpoint) == ("/files", "ClusterIP")
    assert (settings.namespace, settings.namespaces) == ("codetune-system", ["a"])


def test_the_values_for_a_bucket_in_the_docs_are_settings_of_the_operator() -> None:
    block = (REPOSITORY / "docs" / "storage.md").read_text().split("```yaml\n")[1].split("```")[0]
    (found,) = find(render_chart(yaml.safe_load(block)), "ConfigMap")
    settings = parse_settings(found["data"]["settings.yaml"])
    assert settings.store.uri == "s3://codetune/artifacts"
    assert settings.s3 is not None
    assert settings.s3.credentials_secret_name == "codetune-s3"


def test_store_services_run_from_the_image_of_the_operator_unless_told_otherwise() -> None:
    mine = {"image": {"repository": "registry.example.com/codetune-operator", "tag": "7"}}
    for expected, values in {
        "registry.example.com/codetune-operator:7": mine,
        "other:1": {**mine, "settings": {"images": {"operator": "other:1"}}},
    }.items():
        objects = render_chart(values)
        assert parse_settings(find(objects, "ConfigMap")[0]["data"]["settings.yaml"]).images.operator == expected
        pod = find(objects, "Deployment")[0]["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "registry.example.com/codetune-operator:7"


def test_named_namespaces_get_roles_and_a_cluster_role_that_only_lets_go() -> None:
    objects = render_chart({"watchNamespaces": ["a", "b"]})
    roles = [
        found["metadata"]["namespace"] for found in find(objects, "Role") if "key" not in found["metadata"]["name"]
    ]
    assert roles == ["a", "b"]
    (ending,) = [found for found in find(objects, "ClusterRole") if "operator" in found["metadata"]["name"]]
    assert ending["rules"] == [
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["a", "b"], "verbs": ["get"]},
        {"apiGroups": ["codetune.dev"], "resources": ["projects", "finetunes"], "verbs": ["list", "patch"]},
    ]
    (binding,) = find(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == ending["metadata"]["name"]
    assert binding["subjects"] == find(objects, "RoleBinding", "key")[0]["subjects"]


@pytest.mark.parametrize("block", ["dashboards", "prometheusRule"])
def test_an_upgrade_goes_through_with_the_values_of_a_release_that_had_a_block_not_yet(
    tmp_path: Path, block: str
) -> None:
    """`--reuse-values` puts the values of the old chart, defaults included, in the place of the new one's."""
    old = shutil.copytree(CHART, tmp_path / "codetune")
    values = yaml.safe_load((old / "values.yaml").read_text())
    del values[block]
    (old / "values.yaml").write_text(yaml.safe_dump(values))
    assert render_chart({}, chart=old) == render_chart({})


def test_all_namespaces_need_no_role_for_their_end(default: Objects) -> None:
    assert not find(default, "ClusterRole", "ending")
    assert not find(default, "ClusterRoleBinding", "ending")


@pytest.mark.parametrize(
    ("count", "values"),
    [
        pytest.param(4, {}, id="on"),
        pytest.param(0, {"crds": {"enabled": False}}, id="off"),
    ],
)
def test_definitions_are_installed_when_wanted_and_kept(count: int, values: dict[str, Any]) -> None:
    found = find(render_chart(values), "CustomResourceDefinition")
    assert len(found) == count
    for definition in found:
        assert definition["metadata"]["annotations"] == {
            "helm.sh/resource-policy": "keep",
            "argocd.argoproj.io/sync-options": "Prune=false",
        }


@pytest.mark.parametrize("page", ["README.md", "templates/NOTES.txt"])
def test_whoever_removes_the_release_reads_what_to_delete_first_and_how_to_let_go_later(page: str) -> None:
    text = (CHART / page).read_text()
    kinds = [definition["metadata"]["name"] for definition in find(render_chart({}), "CustomResourceDefinition")]
    (delete,) = re.findall(r"kubectl delete (\S+) --all -A", text)
    # Never by the bare name: on OpenShift `projects` are the cluster's own.
    assert sorted(delete.split(",")) == sorted(kinds)
    (kind, patch) = re.findall(r"kubectl patch (\S+) NAME -n NAMESPACE --type merge -p '(.+)'", text)[0]
    assert kind in kinds
    assert json.loads(patch) == {"metadata": {"finalizers": None}}


def test_a_network_policy_is_there_only_when_wanted(default: Objects) -> None:
    assert not find(default, "NetworkPolicy")
    assert len(find(render_chart({"networkPolicy": {"enabled": True}}), "NetworkPolicy")) == 1


@pytest.mark.parametrize(
    ("expected", "ports"),
    [
        pytest.param([443, 6443], {}, id="those of most clusters"),
        pytest.param([443, 16443], {"apiServerPorts": [443, 16443]}, id="those of another"),
    ],
)
def test_the_operator_reaches_names_and_the_api_server_and_serving_pods(expected: list[int], ports: Any) -> None:
    (policy,) = find(render_chart({"networkPolicy": {"enabled": True, **ports}}), "NetworkPolicy")
    found = [[(entry["port"], entry["protocol"]) for entry in rule["ports"]] for rule in policy["spec"]["egress"]]
    names = [(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")]
    assert found == [names, [(port, "TCP") for port in expected], [(8000, "TCP")]]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"replica": 2}, id="unknown-value"),
        pytest.param({"podMonitor": {"keySecret": {"name": "x"}}}, id="half-a-reference"),
        pytest.param({"replicas": "two"}, id="wrong-type"),
        pytest.param({"settings": {"namespaces": ["a"]}}, id="setting-that-follows-from-another-value"),
        pytest.param({"watchNamespaces": ["a", "a"]}, id="a-namespace-twice"),
        pytest.param({"watchNamespaces": ["a b"]}, id="no-name-of-a-namespace"),
        pytest.param({"dashboards": {"labels": {"grafana_dashboard": 1}}}, id="a-label-that-is-no-text"),
        pytest.param({"prometheusRule": {"enable": True}}, id="unknown-value-of-the-alerts"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(HelmError):
        render_chart(values)


DOCKERFILES = sorted(REPOSITORY.glob("*/Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_as_somebody_and_from_a_named_version(path: Path) -> None:
    text = path.read_text()
    assert "USER 65532:65532" in text
    assert ":latest" not in text
    assert "ADD http" not in text


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_knows_who_it_runs_as(path: Path) -> None:
    text = path.read_text()
    assert "codetune:x:65532:65532:" in text
    assert "\nCOPY --from=build /etc/passwd /etc/group /etc/\n" in text[: text.index("USER 65532:65532")]


def test_there_are_three_dockerfiles() -> None:
    assert len(DOCKERFILES) == 3
