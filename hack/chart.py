"""The chart's objects on a cluster whose operator is a process and not a Deployment.

The operator gets the chart's ServiceAccount, so that the chart's RBAC is really evaluated, and the settings that the
chart renders.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

CHART = Path(__file__).resolve().parent.parent / "charts" / "codetune"
SYSTEM_NAMESPACE = "codetune-system"
RELEASE = "codetune"

Kubectl = Callable[..., str]
"""Runs kubectl with these arguments and, as `text`, its input; returns what it printed."""


def render_chart(
    values: Mapping[str, Any], release: str = RELEASE, namespace: str = SYSTEM_NAMESPACE, chart: Path = CHART
) -> list[dict[str, Any]]:
    """The chart's objects as Helm renders them."""
    manifests = Chart.load(chart).render(dict(values), name=release, namespace=namespace)
    texts = [text for name, text in manifests.items() if name.endswith((".yaml", ".yml"))]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def apply_chart(
    kubectl: Kubectl, values: Mapping[str, Any], release: str = RELEASE, namespace: str = SYSTEM_NAMESPACE
) -> str:
    """Apply everything but the Deployment, definitions first. Returns: the operator's settings, as YAML."""
    objects = [found for found in render_chart(values, release, namespace) if found["kind"] != "Deployment"]
    definitions = [found for found in objects if found["kind"] == "CustomResourceDefinition"]
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all([home, *definitions]))
    for found in definitions:
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{found['metadata']['name']}")
    others = [found for found in objects if found not in definitions]
    kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all(others))
    (settings,) = [found["data"]["settings.yaml"] for found in others if found["kind"] == "ConfigMap"]
    return str(settings)


def write_operator_kubeconfig(
    kubectl: Kubectl, administrator: Path, path: Path, release: str = RELEASE, namespace: str = SYSTEM_NAMESPACE
) -> None:
    """A kubeconfig like the administrator's, but with nothing but the operator's ServiceAccount token."""
    token = kubectl("create", "token", release, "-n", namespace, "--duration=24h").strip()
    config = yaml.safe_load(administrator.read_text())
    config["users"] = [{"name": release, "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"]["user"] = release
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
