"""The scale subresource of built-in and custom kinds."""

import copy
import json
from typing import Any

from aiohttp import web

from codetune_local.apiserver.answering.requests import Target, is_dry_run, manager_of
from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import bad_request
from codetune_local.apiserver.objects import patching
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]


def _paths(info: ResourceInfo) -> tuple[list[str], list[str], list[str]]:
    declared = ((info.custom or {}).get("subresources") or {}).get("scale") or {}
    spec = declared.get("specReplicasPath", ".spec.replicas")
    status = declared.get("statusReplicasPath", ".status.replicas")
    selector = declared.get("labelSelectorPath", "" if info.custom else ".spec.selector")
    first, second, third = (path.strip(".").split(".") if path else [] for path in (spec, status, selector))
    return first, second, third


def _at(obj: Obj, path: list[str]) -> Any:
    found: Any = obj
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def read_scale(info: ResourceInfo, obj: Obj) -> Obj:
    """The autoscaling/v1 Scale of an object."""
    spec, status, selector = _paths(info)
    found = _at(obj, selector) if selector else ""
    if isinstance(found, dict):
        found = ",".join(f"{key}={value}" for key, value in sorted((found.get("matchLabels") or {}).items()))
    kept = {
        key: obj["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in obj["metadata"]
    }
    replicas = _at(obj, spec)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": kept,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": _at(obj, status) or 0, **({"selector": found} if found else {})},
    }


async def write_scale(request: web.Request, info: ResourceInfo, target: Target, registry: Registry) -> Obj:
    """PUT or PATCH of a Scale; returns the new one. Raises: ApiError."""
    body = json.loads(await request.read())
    spec, _, _ = _paths(info)

    def change(live: Obj) -> Obj:
        scale = read_scale(info, live)
        if request.method == "PUT":
            scale = body
        elif request.content_type == "application/json-patch+json":
            scale = patching.json_patch(scale, body)
        else:
            scale = patching.merge_patch(scale, body)
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            raise bad_request(f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0")
        result = copy.deepcopy(live)
        holder = result
        for key in spec[:-1]:
            holder = holder.setdefault(key, {})
        holder[spec[-1]] = replicas
        version = (scale.get("metadata") or {}).get("resourceVersion")
        if version:
            result["metadata"]["resourceVersion"] = version
        return result

    manager = manager_of(request.query, request.headers.get("User-Agent", ""))
    written = registry.modify(
        info, target.namespace or "", target.name, change, manager=manager, dry_run=is_dry_run(request.query)
    )
    return read_scale(info, written)
