"""What all have in common that answer requests over HTTP: Service, probes, how one pod follows another. Pure."""

from collections.abc import Mapping
from typing import Any

from codetune_api.modeldeployment import ServiceSpec

Obj = dict[str, Any]

# The new pod is there before an old one goes: a change never takes the service down.
ROLLING: Obj = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
REPLACING: Obj = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "100%"}}
"""Where no pod answers there is nothing to keep up: pods that hang or crash go at once, instead of holding the GPUs or
the quota that those need which are to mend it."""
_PORT_NAME = "http"


def service_spec(service: ServiceSpec, selector: Mapping[str, str]) -> Obj:
    """The stable address of all pods with these labels."""
    port = {"name": _PORT_NAME, "port": service.port, "targetPort": _PORT_NAME, "protocol": "TCP"}
    return {"type": service.type, "selector": dict(selector), "ports": [port]}


def container_ports(port: int) -> list[Obj]:
    """The port of a container that the Service and the probes mean."""
    return [{"name": _PORT_NAME, "containerPort": port, "protocol": "TCP"}]


def build_probe(path: str, *, period: int, failures: int) -> Obj:
    """A request every `period` seconds; so many that fail, one after the other, count."""
    return {
        "httpGet": {"path": path, "port": _PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
