"""Discovery and OpenAPI: what clients ask to learn what is served. Pure."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from codetune_local.apiserver.catalog import REVIEWS, ResourceInfo
from codetune_local.apiserver.objects.schemas import definition_name, definitions, schema_of

Obj = dict[str, Any]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0+codetune-local", "platform": "linux/amd64"}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBVERBS = {
    "log": ["get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
    "binding": ["create"],
    "eviction": ["create"],
    "token": ["create"],
    "finalize": ["update"],
    "exec": ["create", "get"],
    "attach": ["create", "get"],
    "portforward": ["create", "get"],
}
_SUBKINDS = {
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
    "token": {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"},
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "binding": {"kind": "Binding"},
}


def group_versions(infos: Iterable[ResourceInfo]) -> dict[str, list[str]]:
    """Group → its versions."""
    found: dict[str, list[str]] = {}
    for info in infos:
        versions = found.setdefault(info.group, [])
        if info.version not in versions:
            versions.append(info.version)
    for group, _ in REVIEWS:
        found.setdefault(group, ["v1"])
    return found


def api_group(name: str, versions: list[str]) -> Obj:
    """An APIGroup."""
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(group: str, version: str, infos: Iterable[ResourceInfo]) -> Obj:
    """An APIResourceList."""
    resources: list[Obj] = []
    for info in infos:
        if (info.group, info.version) != (group, version):
            continue
        entry: Obj = {
            "name": info.plural,
            "singularName": info.kind.lower(),
            "namespaced": info.namespaced,
            "kind": info.kind,
            "verbs": _VERBS,
        }
        if info.short_names:
            entry["shortNames"] = list(info.short_names)
        if info.categories:
            entry["categories"] = list(info.categories)
        resources.append(entry)
        for sub in info.subresources:
            kind = _SUBKINDS.get(sub, {"kind": info.kind})
            resources.append(
                {
                    "name": f"{info.plural}/{sub}",
                    "singularName": "",
                    "namespaced": info.namespaced,
                    **kind,
                    "verbs": _SUBVERBS.get(sub, ["get", "patch", "update"]),
                }
            )
    for (owner, plural), (kind_name, namespaced) in REVIEWS.items():
        if (owner, "v1") == (group, version):
            resources.append(
                {"name": plural, "singularName": "", "namespaced": namespaced, "kind": kind_name, "verbs": ["create"]}
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def aggregated(infos: list[ResourceInfo], *, core: bool) -> Obj:
    """An APIGroupDiscoveryList (apidiscovery.k8s.io/v2) of the core group, or of all others."""
    groups = []
    for group, versions in group_versions(infos).items():
        if (group == "") is core:
            entries = [
                {"version": version, "freshness": "Current", "resources": _aggregated_resources(group, version, infos)}
                for version in versions
            ]
            groups.append({"metadata": {"name": group} if group else {}, "versions": entries})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups}


def _aggregated_resources(group: str, version: str, infos: list[ResourceInfo]) -> list[Obj]:
    found: list[Obj] = []
    for entry in resource_list(group, version, infos)["resources"]:
        scope = "Namespaced" if entry["namespaced"] else "Cluster"
        kind = {"group": entry.get("group", group), "version": entry.get("version", version), "kind": entry["kind"]}
        name, _, sub = entry["name"].partition("/")
        if sub:
            owner = next(item for item in found if item["resource"] == name)
            owner.setdefault("subresources", []).append(
                {"subresource": sub, "responseKind": kind, "verbs": entry["verbs"]}
            )
        else:
            extra = {key: entry[key] for key in ("shortNames", "categories") if key in entry}
            found.append(
                {
                    "resource": name,
                    "responseKind": kind,
                    "scope": scope,
                    "singularResource": entry["singularName"],
                    "verbs": entry["verbs"],
                    **extra,
                }
            )
    return found


# -- OpenAPI

PROTO_OPENAPI = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def _text_field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


# kubectl asks for this form only about kinds that it did not find in /openapi/v3, so it holds no definitions: a
# Document with `swagger` (1) and `info` (2: `title` 1, `version` 2).
_INFO = _text_field(1, b"Kubernetes") + _text_field(2, VERSION["gitVersion"].encode())
OPENAPI_V2_PROTOBUF = _text_field(1, b"2.0") + _text_field(2, _INFO)


def openapi_v2(infos: Iterable[ResourceInfo]) -> Obj:
    """A swagger document with the definitions of all kinds."""
    found = {name: _rewrite(schema, "#/definitions/") for name, schema in definitions().items()}
    for info in infos:
        if info.custom is not None:
            found[_custom_name(info)] = _custom_definition(info)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": {},
        "definitions": found,
    }


def openapi_v3_index(infos: Iterable[ResourceInfo]) -> Obj:
    """Where the documents of the group versions are; the hash changes with what is served."""
    infos = list(infos)
    paths: Obj = {}
    for group, versions in group_versions(infos).items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            served = [
                schema_of(info) for info in infos if (info.group, info.version) == (group, version) and info.custom
            ]
            digest = hashlib.sha256(json.dumps(served, sort_keys=True).encode()).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def openapi_v3(group: str, version: str, infos: Iterable[ResourceInfo]) -> Obj:
    """The document of one group version: its kinds, and that writes take `fieldValidation`."""
    schemas: Obj = {}
    paths: Obj = {}
    for info in infos:
        if (info.group, info.version) != (group, version):
            continue
        name = _custom_name(info) if info.custom is not None else definition_name(info)
        if name is None:
            continue
        if info.custom is not None:
            schemas[name] = _custom_definition(info)
            _add_referenced("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", schemas)
        else:
            _add_referenced(name, schemas)
        paths |= _paths(info, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _paths(info: ResourceInfo, name: str) -> Obj:
    root = f"/apis/{info.group}/{info.version}" if info.group else f"/api/{info.version}"
    base = f"{root}/namespaces/{{namespace}}/{info.plural}" if info.namespaced else f"{root}/{info.plural}"
    gvk = {"group": info.group, "version": info.version, "kind": info.kind}
    schema = {"$ref": f"#/components/schemas/{name}"}

    def operation(action: str) -> Obj:
        parameters = [
            {"name": key, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for key in ("dryRun", "fieldManager", "fieldValidation")
        ]
        reply = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
            "parameters": parameters,
            "responses": reply,
        }

    return {
        base: {"post": operation("post")},
        f"{base}/{{name}}": {"get": operation("get"), "put": operation("put"), "patch": operation("patch")},
    }


def _custom_name(info: ResourceInfo) -> str:
    return ".".join([*reversed(info.group.split(".")), info.version, info.kind])


def _custom_definition(info: ResourceInfo) -> Obj:
    schema = dict(info.schema or {"type": "object"})
    metadata = {
        "allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}],
        "description": "Standard object's metadata.",
    }
    kinds = {key: {"type": "string"} for key in ("apiVersion", "kind")}
    schema["properties"] = {**kinds, **(schema.get("properties") or {}), "metadata": metadata}
    gvk = {"group": info.group, "version": info.version, "kind": info.kind}
    return {**schema, "x-kubernetes-group-version-kind": [gvk]}


def _add_referenced(name: str, schemas: Obj) -> None:
    if name in schemas:
        return
    schemas[name] = _rewrite(definitions()[name], "#/components/schemas/")
    for found in _references(definitions()[name]):
        _add_referenced(found, schemas)


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rsplit("/", 1)[1]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _rewrite(value: Any, prefix: str) -> Any:
    """References of the packaged file become references inside the document."""
    if isinstance(value, dict):
        return {
            key: prefix + inner.rsplit("/", 1)[1]
            if key == "$ref" and isinstance(inner, str)
            else _rewrite(inner, prefix)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_rewrite(inner, prefix) for inner in value]
    return value
