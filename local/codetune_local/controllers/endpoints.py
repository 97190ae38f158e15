"""EndpointSlices from a Service and the pods that it selects. Pure."""

from collections.abc import Sequence

from codetune_local.controllers.naming import child_name, hash_template
from codetune_local.machinery.objects import (
    Obj,
    is_being_deleted,
    is_condition_true,
    labels_of,
    name_of,
    namespace_of,
    owner_reference,
    uid_of,
)

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
_FINAL = ("Succeeded", "Failed")


def build_endpoint_slices(service: Obj, pods: Sequence[Obj]) -> list[Obj]:
    """One slice for each set of port numbers: pods may have different numbers behind the same port name.

    Args:
        pods: Those of the Service's namespace.
    """
    selector = service["spec"].get("selector")
    if not selector:
        return []  # somebody else keeps the endpoints
    groups: dict[tuple[tuple[str, str, int], ...], list[Obj]] = {}
    for pod in sorted(pods, key=name_of):
        labels = labels_of(pod)
        if all(labels.get(key) == value for key, value in selector.items()) and _has_address(pod):
            groups.setdefault(_resolve_ports(service, pod), []).append(_build_endpoint(service, pod))
    if not groups:
        groups[()] = []
    return [_build_slice(service, ports, endpoints) for ports, endpoints in groups.items()]


def _has_address(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in _FINAL


def _resolve_ports(service: Obj, pod: Obj) -> tuple[tuple[str, str, int], ...]:
    resolved = []
    for port in service["spec"].get("ports") or []:
        number = _target_number(port, pod)
        if number is not None:
            resolved.append((port.get("name", ""), port.get("protocol", "TCP"), number))
    return tuple(resolved)


def _target_number(port: Obj, pod: Obj) -> int | None:
    target: int | str = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    if target.isdecimal():
        return int(target)
    containers = [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]
    found = (entry for container in containers for entry in container.get("ports") or [])
    return next((int(entry["containerPort"]) for entry in found if entry.get("name") == target), None)


def _build_endpoint(service: Obj, pod: Obj) -> Obj:
    serving, terminating = is_condition_true(pod, "Ready"), is_being_deleted(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    endpoint: Obj = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": pod["spec"].get("nodeName", ""),
        "targetRef": {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)},
    }
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == name_of(service):
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _build_slice(service: Obj, ports: tuple[tuple[str, str, int], ...], endpoints: list[Obj]) -> Obj:
    suffix = hash_template([list(port) for port in ports])[:5]
    metadata = {
        "name": child_name(name_of(service), suffix),
        "namespace": namespace_of(service),
        "labels": {**labels_of(service), SERVICE_LABEL: name_of(service), MANAGED_LABEL: MANAGER},
        "ownerReferences": [owner_reference(service)],
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": name, "protocol": protocol, "port": number} for name, protocol, number in ports],
    }
