"""What surrounds serving pods: disruption budget, autoscaler and network policy, as whole objects."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from codetune_api.metadata import labels
from codetune_api.modeldeployment import ModelDeployment
from codetune_operator.resources.modeldeployment.policies import build_policies
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.settings import Settings

Obj = dict[str, Any]
SELECTOR = {
    "app.kubernetes.io/instance": "coder",
    "app.kubernetes.io/component": "server",
    "codetune.dev/modeldeployment": "coder",
}
HTTP = [{"port": 8000, "protocol": "TCP"}]
DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "codetune-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "codetune"}},
}


def build(settings: Settings | None = None, **spec: Any) -> dict[str, Obj]:
    """The specs of the policies, by kind."""
    metadata = {"name": "coder", "namespace": "ns", "uid": "u1", "generation": 1}
    spec = {"baseModel": "pvc://models/qwen", **spec}
    deployment = ModelDeployment.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": spec}
    )
    model = locate_model(deployment.spec.base_model, settings or Settings())
    assert isinstance(model, ModelSource)
    built = build_policies(deployment, model, settings or Settings())
    assert {each["metadata"]["name"] for each in built} <= {"coder"}
    return {each["kind"]: each["spec"] for each in built}


@pytest.mark.parametrize(("expected", "replicas"), [(False, 0), (False, 1), (True, 2), (True, 9)])
def test_a_budget_is_there_only_where_a_replica_can_be_spared(expected: bool, replicas: int) -> None:
    found = build(replicas=replicas).get("PodDisruptionBudget")
    budget = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": SELECTOR},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert found == (budget if expected else None)


def test_an_autoscaler_follows_the_queue_and_scales_the_modeldeployment() -> None:
    assert "HorizontalPodAutoscaler" not in build()
    scaled = build(autoscaling={"minReplicas": 2, "maxReplicas": 6, "target": 8, "scaleDownDelaySeconds": 60})
    metric = {"name": "vllm_num_requests_waiting"}
    target = {"type": "AverageValue", "averageValue": "8"}
    assert scaled["HorizontalPodAutoscaler"] == {
        "scaleTargetRef": {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment", "name": "coder"},
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [{"type": "Pods", "pods": {"metric": metric, "target": target}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
    }


INGRESS = [
    pytest.param([{"podSelector": {}}, OPERATOR], {}, id="its namespace and the operator"),
    pytest.param(
        [
            {"podSelector": {}},
            OPERATOR,
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}},
        ],
        {"networkPolicy": {"allowNamespaces": ["ingress"]}},
        id="another namespace",
    ),
    pytest.param(None, {"service": {"type": "LoadBalancer"}}, id="everybody, for a Service for the outside"),
    pytest.param(None, {"service": {"type": "NodePort"}}, id="everybody, for a port of the nodes"),
]


@pytest.mark.parametrize(("expected", "spec"), INGRESS)
def test_only_the_served_port_can_be_reached_and_by_few(expected: list[Obj] | None, spec: Obj) -> None:
    policy = build(**spec)["NetworkPolicy"]
    assert policy["podSelector"] == {"matchLabels": SELECTOR}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": HTTP, **({"from": expected} if expected else {})}]


def test_what_watches_over_the_cluster_may_reach_every_server() -> None:
    settings = Settings(monitoring_namespaces=["monitoring", "ingress"])
    policy = build(settings, networkPolicy={"allowNamespaces": ["ingress"]})["NetworkPolicy"]
    names = [peer.get("namespaceSelector", {}).get("matchLabels", {}) for peer in policy["ingress"][0]["from"][2:]]
    assert [labels["kubernetes.io/metadata.name"] for labels in names] == ["ingress", "monitoring"]


KEYS = {"credentialsSecretName": "codetune-s3"}
EGRESS: list[Any] = [
    pytest.param([], "pvc://models/qwen", {}, id="names only"),
    pytest.param([443], "hf://org/name", {}, id="the hub"),
    pytest.param([8443], "hf://org/name", {"hub": {"endpoint": "https://mirror:8443"}}, id="a mirror"),
    pytest.param([80], "hf://org/name", {"hub": {"endpoint": "http://mirror"}}, id="a plain mirror"),
    pytest.param([443], "pvc://models/qwen", {"s3": KEYS}, id="adapters from buckets of AWS"),
    pytest.param([443], "hf://org/name", {"s3": KEYS}, id="the same port once"),
    pytest.param(
        [443, 9000],
        "hf://org/name",
        {"s3": {**KEYS, "endpoint": "http://minio:9000"}},
        id="the hub and an S3 endpoint",
    ),
    pytest.param([80], "s3://models/qwen", {"s3": {**KEYS, "endpoint": "http://minio"}}, id="a plain S3 endpoint"),
    pytest.param(
        [80, 9000],
        "s3://models/qwen",
        {"s3": {**KEYS, "endpoint": "http://minio"}, "networkPolicy": {"egressPorts": [9000, 80]}},
        id="the port of the pods behind an S3 endpoint's Service",
    ),
]


@pytest.mark.parametrize(("expected", "base", "settings"), EGRESS)
def test_pods_call_nobody_but_where_model_and_adapters_are_fetched(
    expected: list[int], base: str, settings: Obj
) -> None:
    egress = build(Settings.model_validate(settings), baseModel=base)["NetworkPolicy"]["egress"]
    assert egress == [DNS, *({"ports": [{"port": port, "protocol": "TCP"}]} for port in expected)]


def test_pods_without_a_secret_reach_who_gives_out_keys_for_their_identity() -> None:
    blocks = ["169.254.169.254/32", "169.254.170.23/32", "fd00:ec2::254/128", "fd00:ec2::23/128"]
    identities = {
        "to": [{"ipBlock": {"cidr": block}} for block in blocks],
        "ports": [{"port": 80, "protocol": "TCP"}],
    }
    egress = build(Settings.model_validate({"s3": {}}))["NetworkPolicy"]["egress"]
    assert egress == [DNS, {"ports": [{"port": 443, "protocol": "TCP"}]}, identities]


def test_the_network_policy_can_be_turned_off() -> None:
    assert "NetworkPolicy" not in build(networkPolicy={"enabled": False})


def test_the_documented_monitors_fit_what_is_built() -> None:
    folder = Path(__file__).parents[4] / "docs" / "monitoring"
    found = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    assert found.keys() == {"podmonitor", "scaledobject"}
    marks = {"app.kubernetes.io/part-of": "codetune", "app.kubernetes.io/component": "server"}
    assert found["podmonitor"]["spec"]["selector"]["matchLabels"] == marks
    assert marks.items() <= labels("server", "coder", {}).items()
    assert [endpoint["port"] for endpoint in found["podmonitor"]["spec"]["podMetricsEndpoints"]] == ["http"]
    target = build(autoscaling={"maxReplicas": 2})["HorizontalPodAutoscaler"]["scaleTargetRef"]
    assert found["scaledobject"]["spec"]["scaleTargetRef"] == target
