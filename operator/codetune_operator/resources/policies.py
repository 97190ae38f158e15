"""Disruption budgets and network policies, as far as they are the same for whoever answers requests. Pure."""

from collections.abc import Mapping
from typing import Any

from codetune_api.modeldeployment import NetworkPolicySpec

from codetune_operator.settings import Settings

Obj = dict[str, Any]

POLICY_KINDS = {
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "NetworkPolicy": "networking.k8s.io/v1",
}
"""Kind → API version of what may be there or not; each bears the name of the Deployment that it is about."""
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_DNS_PORTS = (53, 5353)
"""Of the Service, and of the pods behind it on OpenShift: most network plugins look at the pod's port."""


def budget_spec(selector: Mapping[str, str]) -> Obj:
    """One replica at a time may be taken away on purpose; one that does not work may go at any time."""
    return {
        "maxUnavailable": 1,
        "selector": {"matchLabels": dict(selector)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def own_namespace() -> Obj:
    """All pods of the policy's own namespace."""
    return {"podSelector": {}}


def named_namespaces(policy: NetworkPolicySpec, settings: Settings) -> list[Obj]:
    """The namespaces whom the spec and the settings let in."""
    names = dict.fromkeys([*policy.allow_namespaces, *settings.monitoring_namespaces])
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}} for name in names]


def names_rule() -> Obj:
    """An egress rule for DNS."""
    return {"ports": [{"port": port, "protocol": name} for port in _DNS_PORTS for name in ("UDP", "TCP")]}
