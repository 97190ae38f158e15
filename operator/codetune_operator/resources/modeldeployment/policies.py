"""What surrounds the pods of a ModelDeployment: disruption budget, autoscaler, network policy. Pure."""

from typing import Any
from urllib.parse import urlsplit

from codetune_api.metadata import API_VERSION
from codetune_api.modeldeployment import ModelDeployment

from codetune_operator.resources.buckets import bucket_port
from codetune_operator.resources.modeldeployment.names import PORT, build_object, pod_selector
from codetune_operator.resources.models import ModelSource
from codetune_operator.resources.policies import (
    NAMESPACE_LABEL,
    POLICY_KINDS,
    budget_spec,
    named_namespaces,
    names_rule,
    own_namespace,
)
from codetune_operator.settings import Settings

Obj = dict[str, Any]

_IDENTITIES = ("169.254.169.254/32", "169.254.170.23/32", "fd00:ec2::254/128", "fd00:ec2::23/128")
"""Where AWS gives out the keys of a node's role and of EKS Pod Identity, always on port 80."""


def build_policies(deployment: ModelDeployment, model: ModelSource, settings: Settings) -> tuple[Obj, ...]:
    """Those that the spec asks for."""
    spec = deployment.spec
    built = []
    if spec.replicas > 1:
        built.append(_build_budget(deployment))
    if spec.autoscaling is not None:
        built.append(_build_autoscaler(deployment))
    if spec.network_policy.enabled:
        built.append(_build_network_policy(deployment, model, settings))
    return tuple(built)


def _build_budget(deployment: ModelDeployment) -> Obj:
    return {**_start(deployment, "PodDisruptionBudget"), "spec": budget_spec(pod_selector(deployment))}


def _build_autoscaler(deployment: ModelDeployment) -> Obj:
    autoscaling = deployment.spec.autoscaling
    assert autoscaling is not None
    built = _start(deployment, "HorizontalPodAutoscaler")
    target = {"type": "AverageValue", "averageValue": str(autoscaling.target)}
    built["spec"] = {
        # The ModelDeployment and not its Deployment: who counts replicas is then said in one place.
        "scaleTargetRef": {"apiVersion": API_VERSION, "kind": "ModelDeployment", "name": deployment.metadata.name},
        "minReplicas": autoscaling.min_replicas,
        "maxReplicas": autoscaling.max_replicas,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": autoscaling.metric}, "target": target}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": autoscaling.scale_down_delay_seconds}},
    }
    return built


def _build_network_policy(deployment: ModelDeployment, model: ModelSource, settings: Settings) -> Obj:
    built = _start(deployment, "NetworkPolicy")
    ingress: Obj = {"ports": [{"port": PORT, "protocol": "TCP"}]}
    if deployment.spec.service.type == "ClusterIP":
        ingress["from"] = _admitted(deployment, settings)
    built["spec"] = {
        "podSelector": {"matchLabels": pod_selector(deployment)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [ingress],
        "egress": _egress(model, settings),
    }
    return built


def _admitted(deployment: ModelDeployment, settings: Settings) -> list[Obj]:
    """Its own namespace, the operator, and whom the spec names; a Service for the outside admits everybody."""
    operator = {
        "namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: settings.namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "codetune"}},
    }
    return [own_namespace(), operator, *named_namespaces(deployment.spec.network_policy, settings)]


def _egress(model: ModelSource, settings: Settings) -> list[Obj]:
    """DNS; the model hub, where the init container has to fetch the model; where adapters may come from buckets, these,
    and who gives out keys for them where no Secret has any; and what the settings name. Serving itself calls nobody."""
    ports = []
    if model.hub is not None:
        place = urlsplit(settings.hub.endpoint or "https://")
        ports.append(place.port or (80 if place.scheme == "http" else 443))
    if settings.s3 is not None:
        ports.append(bucket_port(settings.s3))
    ports += settings.network_policy.egress_ports
    rules = [names_rule(), *({"ports": [{"port": port, "protocol": "TCP"}]} for port in dict.fromkeys(ports))]
    if settings.s3 is not None and settings.s3.credentials_secret_name is None:
        peers = [{"ipBlock": {"cidr": block}} for block in _IDENTITIES]
        rules.append({"to": peers, "ports": [{"port": 80, "protocol": "TCP"}]})
    return rules


def _start(deployment: ModelDeployment, kind: str) -> Obj:
    return build_object(deployment, POLICY_KINDS[kind], kind, deployment.metadata.name)
