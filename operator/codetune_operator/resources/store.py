"""The store service of a namespace: Secret, Service and Deployment, as whole objects. Pure.

It has no right to ask the API server anything. Its token is derived, so that the operator reads no Secret; who may read
the Secret and use `services/proxy` is decided by the cluster's own RBAC.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from codetune_api.common import Resource, Resources
from codetune_api.contracts import ENV_NAMESPACE
from codetune_api.metadata import (
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_NAME,
    STORE_PORT,
    STORE_SERVICE,
    STORE_TOKEN_KEY,
    STORE_TOKEN_SECRET,
    labels,
)
from codetune_api.modeldeployment import ServiceSpec
from codetune_api.storing import ENV_STORE_TOKEN_FILE

from codetune_operator.resources.answering import build_probe, container_ports, service_spec
from codetune_operator.resources.pods import container, pod_template
from codetune_operator.settings import Settings

Obj = dict[str, Any]

COMPONENT = "store-service"
CONTAINER = "store"
TOKEN_FOLDER = "/codetune/store-token"
_GRACE_SECONDS = 30
_RESOURCES = Resources(gpus=0, cpu="50m", memory="512Mi")
"""Memory for the bodies of requests under way and the manifests of uploads: see docs/uploads.md for their limits."""


def store_token(operator_key: bytes, namespace: str) -> str:
    """Another one in each namespace; a new operator key makes all of them new."""
    return hmac.new(operator_key, f"store/{namespace}".encode(), hashlib.sha256).hexdigest()


def store_labels() -> dict[str, str]:
    """Labels of all three objects and of the pod."""
    return labels(COMPONENT, STORE_SERVICE, {})


def pod_selector() -> dict[str, str]:
    """Labels that the pod is found by; they can't be changed later, so they are few."""
    chosen = store_labels()
    return {key: chosen[key] for key in (LABEL_NAME, LABEL_INSTANCE, LABEL_COMPONENT)}


def build_store(namespace: str, owners: Sequence[Resource], settings: Settings, operator_key: bytes) -> tuple[Obj, ...]:
    """The three objects, in the order in which they are applied: what the pod mounts comes first.

    Args:
        namespace: The namespace.
        owners: Who needs it; it goes when the last of them goes, also when no operator runs.
        settings: The operator's settings.
        operator_key: Key that the token is derived from.
    """
    token = base64.b64encode(store_token(operator_key, namespace).encode()).decode()
    secret = _build("v1", "Secret", STORE_TOKEN_SECRET, namespace, owners)
    service = _build("v1", "Service", STORE_SERVICE, namespace, owners)
    deployment = _build("apps/v1", "Deployment", STORE_SERVICE, namespace, owners)
    deployment["spec"] = {
        "replicas": 1,
        "selector": {"matchLabels": pod_selector()},
        # Two pods must never write to the same upload.
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 1,
        "template": _pod_template(namespace, settings),
    }
    return (
        {**secret, "type": "Opaque", "data": {STORE_TOKEN_KEY: token}},
        {**service, "spec": service_spec(ServiceSpec(port=STORE_PORT), pod_selector())},
        deployment,
    )


def _build(api_version: str, kind: str, name: str, namespace: str, owners: Sequence[Resource]) -> Obj:
    references = [
        {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.metadata.name, "uid": owner.metadata.uid}
        for owner in owners
    ]
    metadata = {"name": name, "namespace": namespace, "labels": store_labels(), "ownerReferences": references}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _pod_template(namespace: str, settings: Settings) -> Obj:
    service = container(
        name=CONTAINER,
        image=settings.images.operator,
        command=["python", "-m", "codetune_store"],
        settings=settings,
        env={ENV_NAMESPACE: namespace, ENV_STORE_TOKEN_FILE: f"{TOKEN_FOLDER}/{STORE_TOKEN_KEY}"},
        mounts=[{"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True}],
        resources=_RESOURCES,
    )
    service |= {
        "ports": container_ports(STORE_PORT),
        "startupProbe": build_probe("/healthz", period=1, failures=60),
        "readinessProbe": build_probe("/healthz", period=5, failures=3),
        "livenessProbe": build_probe("/healthz", period=20, failures=6),
    }
    # 0440: the pod's group reads it, nobody else does.
    secret = {"secretName": STORE_TOKEN_SECRET, "defaultMode": 0o440}
    return pod_template(
        labels=store_labels(),
        containers=[service],
        volumes=[{"name": "token", "secret": secret}],
        settings=settings,
        restart_policy="Always",
        grace_seconds=_GRACE_SECONDS,
    )
