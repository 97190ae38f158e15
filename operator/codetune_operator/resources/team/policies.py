"""What surrounds the pods of a Team's gateway: disruption budget and network policy. Pure."""

from typing import Any

from codetune_api.gateway import METRICS_PORT
from codetune_api.metadata import LABEL_COMPONENT, LABEL_NAME
from codetune_api.modeldeployment import NetworkPolicySpec
from codetune_api.team import Team

from codetune_operator.resources.modeldeployment import names as servingnames
from codetune_operator.resources.policies import (
    POLICY_KINDS,
    budget_spec,
    named_namespaces,
    names_rule,
    own_namespace,
)
from codetune_operator.resources.team.names import PORT, build_object, pod_selector
from codetune_operator.settings import Settings

Obj = dict[str, Any]


def build_policies(team: Team, settings: Settings) -> tuple[Obj, ...]:
    """Those that the spec asks for."""
    built = []
    if team.spec.replicas > 1:
        built.append({**_start(team, "PodDisruptionBudget"), "spec": budget_spec(pod_selector(team))})
    if team.spec.network_policy.enabled:
        built.append({**_start(team, "NetworkPolicy"), "spec": _network_policy_spec(team, settings)})
    return tuple(built)


def _network_policy_spec(team: Team, settings: Settings) -> Obj:
    """In: its own namespace and whom spec and settings name; everybody, where the Service is for the outside. To its
    metrics: whom the settings name. Out: to serving pods of the namespace, by their names."""
    ingress: Obj = {"ports": [{"port": PORT, "protocol": "TCP"}]}
    if team.spec.service.type == "ClusterIP":
        ingress["from"] = [own_namespace(), *named_namespaces(team.spec.network_policy, settings)]
    scraping = named_namespaces(NetworkPolicySpec(), settings)
    # Without anybody in it, `from` would be everybody.
    metrics = [{"ports": [{"port": METRICS_PORT, "protocol": "TCP"}], "from": scraping}] if scraping else []
    servers = {"podSelector": {"matchLabels": {LABEL_NAME: "codetune", LABEL_COMPONENT: servingnames.COMPONENT}}}
    serving = {"to": [servers], "ports": [{"port": servingnames.PORT, "protocol": "TCP"}]}
    return {
        "podSelector": {"matchLabels": pod_selector(team)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [ingress, *metrics],
        "egress": [names_rule(), serving],
    }


def _start(team: Team, kind: str) -> Obj:
    return build_object(team, POLICY_KINDS[kind], kind)
