"""What surrounds a gateway: disruption budget and network policy, as whole objects."""

from typing import Any

import pytest
from codetune_api.metadata import labels
from codetune_api.team import Team
from codetune_operator.resources.policies import POLICY_KINDS
from codetune_operator.resources.team.policies import build_policies
from codetune_operator.settings import Settings

Obj = dict[str, Any]
SELECTOR = {
    "app.kubernetes.io/instance": "web",
    "app.kubernetes.io/component": "gateway",
    "codetune.dev/team": "web",
}
HTTP = [{"port": 8000, "protocol": "TCP"}]
DNS = {"ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]}
OWN: Obj = {"podSelector": {}}


def build(settings: Settings | None = None, **spec: Any) -> dict[str, Obj]:
    """The specs of the policies, by kind."""
    metadata = {"name": "web", "namespace": "ns", "uid": "t1", "generation": 1}
    spec = {"apiKeysSecretRef": {"name": "keys"}, "completionModel": {"deploymentRef": {"name": "coder"}}, **spec}
    team = Team.from_wire({"apiVersion": "codetune.dev/v1alpha1", "kind": "Team", "metadata": metadata, "spec": spec})
    built = build_policies(team, settings or Settings())
    assert all(each["apiVersion"] == POLICY_KINDS[each["kind"]] for each in built)
    return {each["kind"]: each["spec"] for each in built}


def named(*names: str) -> list[Obj]:
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]


@pytest.mark.parametrize(("expected", "replicas"), [(False, 0), (False, 1), (True, 2), (True, 9)])
def test_a_budget_is_there_only_where_a_pod_can_be_spared(expected: bool, replicas: int) -> None:
    budget = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": SELECTOR},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert build(replicas=replicas).get("PodDisruptionBudget") == (budget if expected else None)


MONITORED = Settings(monitoring_namespaces=["monitoring", "ingress"])
INGRESS = [
    pytest.param([OWN], {}, Settings(), id="its namespace, and not the operator"),
    pytest.param(
        [OWN, *named("ingress")],
        {"networkPolicy": {"allowNamespaces": ["ingress"]}},
        Settings(),
        id="another namespace",
    ),
    pytest.param(
        [OWN, *named("ingress", "monitoring")],
        {"networkPolicy": {"allowNamespaces": ["ingress"]}},
        MONITORED,
        id="what watches over the cluster, each once",
    ),
    pytest.param(
        None, {"service": {"type": "LoadBalancer"}}, Settings(), id="everybody, for a Service for the outside"
    ),
    pytest.param(None, {"service": {"type": "NodePort"}}, MONITORED, id="everybody, for a port of the nodes"),
]


@pytest.mark.parametrize(("expected", "spec", "settings"), INGRESS)
def test_only_the_served_port_can_be_reached_and_by_few(
    expected: list[Obj] | None, spec: Obj, settings: Settings
) -> None:
    policy = build(settings, **spec)["NetworkPolicy"]
    assert policy["podSelector"] == {"matchLabels": SELECTOR}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"][0] == {"ports": HTTP, **({"from": expected} if expected else {})}


SCRAPED = [
    pytest.param([], {}, Settings(), id="nobody"),
    pytest.param([], {"networkPolicy": {"allowNamespaces": ["ingress"]}}, Settings(), id="nobody who may complete"),
    pytest.param([], {"service": {"type": "LoadBalancer"}}, Settings(), id="nobody, for a Service for the outside"),
    pytest.param(
        [{"ports": [{"port": 8001, "protocol": "TCP"}], "from": named("monitoring", "ingress")}],
        {"service": {"type": "LoadBalancer"}},
        MONITORED,
        id="what watches over the cluster",
    ),
]


@pytest.mark.parametrize(("expected", "spec", "settings"), SCRAPED)
def test_the_metrics_are_read_by(expected: list[Obj], spec: Obj, settings: Settings) -> None:
    assert build(settings, **spec)["NetworkPolicy"]["ingress"][1:] == expected


def test_a_gateway_reaches_names_and_serving_pods_of_its_namespace_only() -> None:
    settings = Settings.model_validate({"s3": {}, "networkPolicy": {"egressPorts": [9000]}})
    marks = {"app.kubernetes.io/name": "codetune", "app.kubernetes.io/component": "server"}
    assert marks.items() <= labels("server", "coder", {}).items()
    servers = {"to": [{"podSelector": {"matchLabels": marks}}], "ports": HTTP}
    assert build(settings)["NetworkPolicy"]["egress"] == [DNS, servers]


def test_the_network_policy_can_be_turned_off() -> None:
    assert "NetworkPolicy" not in build(networkPolicy={"enabled": False})
