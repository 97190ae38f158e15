"""Everything that serves a ModelDeployment, as whole objects: configuration, token, Service, Deployment. Pure."""

import base64
import hashlib
from typing import Any

from codetune_api.contracts import DesiredAdapters
from codetune_api.modeldeployment import ModelDeployment

from codetune_operator.resources.answering import REPLACING, ROLLING, service_spec
from codetune_operator.resources.modeldeployment.names import (
    adapter_token,
    adapters_name,
    build_object,
    fetch_config_name,
    pod_selector,
    token_name,
)
from codetune_operator.resources.modeldeployment.pod import ADAPTERS_KEY, TOKEN_KEY, build_pod_template
from codetune_operator.resources.modeldeployment.policies import build_policies
from codetune_operator.resources.models import FETCH_CONFIG_KEY, ModelSource, build_fetch_config
from codetune_operator.settings import Settings

Obj = dict[str, Any]

_ROLLOUT_SECONDS = 600
"""What a replica may take besides loading its model, before a rollout counts as stuck."""


def build_serving(
    deployment: ModelDeployment,
    desired: DesiredAdapters,
    model: ModelSource,
    settings: Settings,
    *,
    operator_key: bytes,
    max_rank: int,
    answers: bool,
) -> tuple[Obj, ...]:
    """Everything that serves, in the order in which it is applied: what pods mount or obey comes first.

    Args:
        deployment: Whose server it is.
        desired: The adapters that are to be served.
        model: Where the base model is.
        settings: The operator's.
        operator_key: What the token is derived from by which the operator is known to the pods.
        max_rank: The rank of adapters that the pods are started for.
        answers: Whether a pod has loaded its model, so that there is something that a change must not take down.
    """
    config = build_object(deployment, "v1", "ConfigMap", adapters_name(deployment))
    config["data"] = {ADAPTERS_KEY: desired.model_dump_json(by_alias=True, exclude_none=True, indent=2)}
    secret = build_object(deployment, "v1", "Secret", token_name(deployment))
    token = base64.b64encode(adapter_token(operator_key, deployment).encode()).decode()
    secret |= {"type": "Opaque", "data": {TOKEN_KEY: token}}
    objects = [config, secret]
    if model.origin is not None:
        objects.append(_build_fetch_config(deployment, model))
    workload = build_object(deployment, "apps/v1", "Deployment", deployment.metadata.name)
    workload["spec"] = {
        **_deployment_spec(deployment, model, settings, max_rank),
        "strategy": ROLLING if answers else REPLACING,
    }
    return (*objects, build_service(deployment), *build_policies(deployment, model, settings), workload)


def build_service(deployment: ModelDeployment) -> Obj:
    """The stable address of all replicas."""
    service = build_object(deployment, "v1", "Service", deployment.metadata.name)
    return {**service, "spec": service_spec(deployment.spec.service, pod_selector(deployment))}


def fetch_nonce(deployment: ModelDeployment) -> str:
    """What the lines carry that a fetching pod prints for the operator."""
    return hashlib.sha256(f"fetch/{deployment.metadata.uid}".encode()).hexdigest()[:32]


def _build_fetch_config(deployment: ModelDeployment, model: ModelSource) -> Obj:
    assert model.origin is not None
    metadata = deployment.metadata
    nonce = fetch_nonce(deployment)
    config = build_fetch_config(model.origin, nonce=nonce, namespace=metadata.namespace, name=metadata.name)
    built = build_object(deployment, "v1", "ConfigMap", fetch_config_name(deployment))
    return {**built, "data": {FETCH_CONFIG_KEY: config.model_dump_json(by_alias=True, exclude_none=True, indent=2)}}


def _deployment_spec(deployment: ModelDeployment, model: ModelSource, settings: Settings, max_rank: int) -> Obj:
    return {
        "replicas": deployment.spec.replicas,
        "selector": {"matchLabels": pod_selector(deployment)},
        "progressDeadlineSeconds": deployment.spec.startup_timeout_seconds + _ROLLOUT_SECONDS,
        "revisionHistoryLimit": 2,
        "template": build_pod_template(deployment, model, settings, max_rank),
    }
