"""How the objects that serve a ModelDeployment are called, labelled and told apart. Pure."""

import hashlib
import hmac
from typing import Any

from codetune_api.metadata import LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MODELDEPLOYMENT, labels
from codetune_api.modeldeployment import ModelDeployment

from codetune_operator.resources.children import build_child
from codetune_operator.resources.models import default_model_name

Obj = dict[str, Any]

CONTAINER = "server"
PORT = 8000
COMPONENT = "server"


def adapters_name(deployment: ModelDeployment) -> str:
    """Name of the ConfigMap with the desired adapters."""
    return f"{deployment.metadata.name}-adapters"


def token_name(deployment: ModelDeployment) -> str:
    """Name of the Secret with the token for the adapter routes."""
    return f"{deployment.metadata.name}-adapter-token"


def fetch_config_name(deployment: ModelDeployment) -> str:
    """Name of the ConfigMap of the init container that fetches the base model."""
    return f"{deployment.metadata.name}-fetch"


def adapter_token(operator_key: bytes, deployment: ModelDeployment) -> str:
    """Derived, not stored: the operator needs no right to read Secrets."""
    return hmac.new(operator_key, f"adapters/{deployment.metadata.uid}".encode(), hashlib.sha256).hexdigest()


def serving_labels(deployment: ModelDeployment) -> dict[str, str]:
    """Labels of everything that serves."""
    name = deployment.metadata.name
    return labels(COMPONENT, name, {LABEL_MODELDEPLOYMENT: name})


def pod_selector(deployment: ModelDeployment) -> dict[str, str]:
    """Labels that the pods are found by; they can't be changed later, so they are few."""
    chosen = serving_labels(deployment)
    return {key: chosen[key] for key in (LABEL_INSTANCE, LABEL_COMPONENT, LABEL_MODELDEPLOYMENT)}


def served_name(deployment: ModelDeployment) -> str:
    """Model name of the base model."""
    return deployment.spec.served_model_name or default_model_name(deployment.spec.base_model)


def build_object(deployment: ModelDeployment, api_version: str, kind: str, name: str) -> Obj:
    """An object with nothing but its type and metadata: labelled, and gone with the ModelDeployment."""
    return build_child(deployment, serving_labels(deployment), api_version, kind, name)
