"""Tables: what `kubectl get` prints. Columns of built-in kinds here, of custom kinds from their definition. Pure."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo

Obj = dict[str, Any]
Cell = Callable[[Obj], Any]
Column = tuple[str, str, Cell]
"""Header, type, and how the cell comes from an object."""


def build_table(info: ResourceInfo, objects: list[Obj], metadata: Obj, include: str, *, headers: bool = True) -> Obj:
    """A meta.k8s.io/v1 Table of objects; `include` is None, Metadata or Object."""
    columns = _columns(info)
    definitions = [
        {
            "name": name,
            "type": kind,
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for name, kind, _, priority in columns
    ]
    rows = [{"cells": [cell(obj) for _, _, cell, _ in columns], **_row_object(obj, include)} for obj in objects]
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**table, "columnDefinitions": definitions if headers else [], "rows": rows}


def build_bookmark(metadata: Obj) -> Obj:
    """The Table of a bookmark in a watch for tables."""
    about = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    rows = [{"cells": [], "object": about}]
    table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    return {**table, "columnDefinitions": [], "rows": rows}


def _row_object(obj: Obj, include: str) -> Obj:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": obj}
    return {"object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}}


def _columns(info: ResourceInfo) -> list[tuple[str, str, Cell, int]]:
    first = ("Name", "string", lambda obj: obj["metadata"]["name"], 0)
    if info.custom is not None:
        declared = info.custom.get("additionalPrinterColumns")
        if not declared:
            return [first, ("Age", "date", _age, 0)]
        return [
            first,
            *((found["name"], found["type"], _custom_cell(found), found.get("priority", 0)) for found in declared),
        ]
    columns = _BUILTIN.get(info.key, [_A])
    shown = [(name, kind, cell, 0) for name, kind, cell in columns]
    wide = [(name, kind, cell, 1) for name, kind, cell in _WIDE.get(info.key, [])]
    # Events are known by what they are about: their own name is only in the wide table.
    return [*shown, *wide, (*first[:3], 1)] if info.plural == "events" else [first, *shown, *wide]


def _custom_cell(column: Obj) -> Cell:
    steps = re.findall(r"\.([A-Za-z0-9_-]+)|\[\?\(@\.([^=)]+)==[\"']([^\"']*)[\"']\)\]|\[(\d+)\]", column["jsonPath"])

    def cell(obj: Obj) -> Any:
        found: Any = obj
        for field, key, value, index in steps:
            if field and isinstance(found, dict):
                found = found.get(field)
            elif key and isinstance(found, list):
                found = next((item for item in found if str(item.get(key)) == value), None)
            elif index and isinstance(found, list):
                found = found[int(index)] if int(index) < len(found) else None
            else:
                return None
        if column["type"] == "date":
            return None if found is None else _since(found)
        if isinstance(found, dict | list):
            return json.dumps(found, separators=(",", ":"))
        return str(found).lower() if isinstance(found, bool) and column["type"] == "string" else found

    return cell


def _age(obj: Obj) -> str:
    return _since(obj["metadata"].get("creationTimestamp"))


def _since(time: Any) -> str:
    """How long ago, in kubectl's short form."""
    if not time:
        return "<unknown>"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()))
    return duration(seconds)


def duration(seconds: int) -> str:
    """`45s`, `5m12s`, `3h5m`, `2d4h`, `40d`, `2y10d`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d"


def _get(*path: str, default: Any = "") -> Cell:
    def cell(obj: Obj) -> Any:
        found: Any = obj
        for key in path:
            found = (found or {}).get(key)
        return default if found is None else found

    return cell


def _pod_ready(pod: Obj) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return f"{sum(bool(found.get('ready')) for found in statuses)}/{len(pod['spec']['containers'])}"


def _pod_restarts(pod: Obj) -> str:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return str(sum(found.get("restartCount", 0) for found in statuses))


def _pod_status(pod: Obj) -> str:
    status = pod.get("status") or {}
    reason: str = status.get("reason") or status.get("phase", "Unknown")
    for index, found in enumerate(status.get("initContainerStatuses") or []):
        state = found.get("state") or {}
        ended = state.get("terminated")
        if ended and ended.get("exitCode") == 0:
            continue
        if ended:
            reason = f"Init:{ended.get('reason') or 'ExitCode:' + str(ended.get('exitCode'))}"
        elif (state.get("waiting") or {}).get("reason") not in (None, "PodInitializing"):
            reason = f"Init:{state['waiting']['reason']}"
        else:
            reason = f"Init:{index}/{len(pod['spec'].get('initContainers') or [])}"
        break
    else:
        for found in reversed(status.get("containerStatuses") or []):
            state = found.get("state") or {}
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            reason = (
                waiting.get("reason") or ended.get("reason") or (f"ExitCode:{ended['exitCode']}" if ended else reason)
            )
    return "Terminating" if pod["metadata"].get("deletionTimestamp") else reason


def _job_status(job: Obj) -> str:
    for found in (job.get("status") or {}).get("conditions") or []:
        if found["status"] == "True" and found["type"] in ("Complete", "Failed", "Suspended"):
            return str(found["type"])
    return "Terminating" if job["metadata"].get("deletionTimestamp") else "Running"


def _job_duration(job: Obj) -> str:
    status = job.get("status") or {}
    if not status.get("startTime"):
        return ""
    end = status.get("completionTime")
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return duration(int((until - datetime.fromisoformat(status["startTime"])).total_seconds()))


def _ports(service: Obj) -> str:
    return (
        ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in service["spec"].get("ports") or [])
        or "<none>"
    )


def _fraction(done: tuple[str, ...], total: tuple[str, ...]) -> Cell:
    return lambda obj: f"{_get(*done, default=0)(obj)}/{_get(*total, default=0)(obj)}"


def _node_status(node: Obj) -> str:
    for found in (node.get("status") or {}).get("conditions") or []:
        if found["type"] == "Ready":
            return "Ready" if found["status"] == "True" else "NotReady"
    return "Unknown"


def _event_object(event: Obj) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _role(binding: Obj) -> str:
    reference = binding["roleRef"]
    return f"{reference['kind']}/{reference['name']}"


def _containers(field: str) -> Cell:
    return lambda obj: ",".join(found[field] for found in obj["spec"]["template"]["spec"]["containers"])


def _selector(*path: str) -> Cell:
    def cell(obj: Obj) -> str:
        found = _get(*path, default={})(obj)
        return ",".join(f"{key}={value}" for key, value in sorted(found.items())) or "<none>"

    return cell


_A: Column = ("Age", "string", _age)
_EVENT: list[Column] = [
    (
        "Last Seen",
        "string",
        lambda obj: _since(
            obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
        ),
    ),
    ("Type", "string", _get("type")),
    ("Reason", "string", _get("reason")),
    ("Object", "string", _event_object),
    ("Message", "string", lambda obj: obj.get("message") or obj.get("note") or ""),
]
_CREATED: Column = ("Created At", "date", _get("metadata", "creationTimestamp"))
_BUILTIN: dict[str, list[Column]] = {
    "pods": [
        ("Ready", "string", _pod_ready),
        ("Status", "string", _pod_status),
        ("Restarts", "string", _pod_restarts),
        _A,
    ],
    "jobs.batch": [
        ("Status", "string", _job_status),
        ("Completions", "string", _fraction(("status", "succeeded"), ("spec", "completions"))),
        ("Duration", "string", _job_duration),
        _A,
    ],
    "deployments.apps": [
        ("Ready", "string", _fraction(("status", "readyReplicas"), ("spec", "replicas"))),
        ("Up-to-date", "string", _get("status", "updatedReplicas", default=0)),
        ("Available", "string", _get("status", "availableReplicas", default=0)),
        _A,
    ],
    "replicasets.apps": [
        ("Desired", "integer", _get("spec", "replicas", default=0)),
        ("Current", "integer", _get("status", "replicas", default=0)),
        ("Ready", "integer", _get("status", "readyReplicas", default=0)),
        _A,
    ],
    "services": [
        ("Type", "string", _get("spec", "type")),
        ("Cluster-IP", "string", _get("spec", "clusterIP", default="<none>")),
        ("External-IP", "string", lambda _: "<none>"),
        ("Port(s)", "string", _ports),
        _A,
    ],
    "configmaps": [
        ("Data", "string", lambda obj: str(len(obj.get("data") or {}) + len(obj.get("binaryData") or {}))),
        _A,
    ],
    "secrets": [("Type", "string", _get("type")), ("Data", "string", lambda obj: str(len(obj.get("data") or {}))), _A],
    "namespaces": [("Status", "string", _get("status", "phase")), _A],
    "nodes": [
        ("Status", "string", _node_status),
        ("Roles", "string", lambda _: "<none>"),
        _A,
        ("Version", "string", _get("status", "nodeInfo", "kubeletVersion")),
    ],
    "persistentvolumeclaims": [
        ("Status", "string", _get("status", "phase")),
        ("Volume", "string", _get("spec", "volumeName")),
        ("Capacity", "string", _get("status", "capacity", "storage")),
        ("Access Modes", "string", lambda obj: ",".join(obj["spec"].get("accessModes") or [])),
        ("StorageClass", "string", _get("spec", "storageClassName")),
        ("VolumeAttributesClass", "string", _get("spec", "volumeAttributesClassName", default="<unset>")),
        _A,
    ],
    "events": _EVENT,
    "events.events.k8s.io": _EVENT,
    "customresourcedefinitions.apiextensions.k8s.io": [_CREATED],
    "leases.coordination.k8s.io": [("Holder", "string", _get("spec", "holderIdentity")), _A],
    "roles.rbac.authorization.k8s.io": [_CREATED],
    "clusterroles.rbac.authorization.k8s.io": [_CREATED],
    "rolebindings.rbac.authorization.k8s.io": [("Role", "string", _role), _A],
    "clusterrolebindings.rbac.authorization.k8s.io": [("Role", "string", _role), _A],
    "storageclasses.storage.k8s.io": [
        ("Provisioner", "string", _get("provisioner")),
        ("ReclaimPolicy", "string", _get("reclaimPolicy", default="Delete")),
        ("VolumeBindingMode", "string", _get("volumeBindingMode", default="Immediate")),
        _A,
    ],
}
_WIDE: dict[str, list[Column]] = {
    "pods": [
        ("IP", "string", _get("status", "podIP", default="<none>")),
        ("Node", "string", _get("spec", "nodeName", default="<none>")),
    ],
    "services": [("Selector", "string", _selector("spec", "selector"))],
    "deployments.apps": [
        ("Containers", "string", _containers("name")),
        ("Images", "string", _containers("image")),
        ("Selector", "string", _selector("spec", "selector", "matchLabels")),
    ],
    "jobs.batch": [("Containers", "string", _containers("name")), ("Images", "string", _containers("image"))],
}
"""Columns of `kubectl get -o wide`."""
