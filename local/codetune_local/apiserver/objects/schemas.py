"""The schema of every kind: built-in ones as a real API server publishes them, custom ones from their definition.

Only what the server itself needs is answered here: what a field's schema is, and how its lists merge.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo

Schema = dict[str, Any]
_RELEASE = "v1.36.0-local"


@cache
def definitions() -> dict[str, Schema]:
    """The built-in definitions, by their OpenAPI names."""
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / _RELEASE
    return {
        name: _normal(found) for name, found in json.loads((folder / "_definitions.json").read_text())["$defs"].items()
    }


def _normal(value: Any) -> Any:
    """The package writes JSON Schema, where optional fields allow null; OpenAPI has one type and leaves null out."""
    if isinstance(value, list):
        return [_normal(found) for found in value]
    if not isinstance(value, dict):
        return value
    result = {key: _normal(found) for key, found in value.items()}
    if isinstance(result.get("type"), list):
        result["type"] = next(kind for kind in result["type"] if kind != "null")
    if isinstance(result.get("enum"), list):
        result["enum"] = [found for found in result["enum"] if found is not None]
    return result


@cache
def _names_by_gvk() -> dict[tuple[str, str, str], str]:
    return {
        (gvk["group"], gvk["version"], gvk["kind"]): name
        for name, schema in definitions().items()
        for gvk in schema.get("x-kubernetes-group-version-kind", [])
        if len(schema.get("x-kubernetes-group-version-kind", [])) == 1
    }


def definition_name(info: ResourceInfo) -> str | None:
    """The OpenAPI name of a built-in kind."""
    return _names_by_gvk().get((info.group, info.version, info.kind))


def schema_of(info: ResourceInfo) -> Schema:
    """The schema of a resource's objects; empty when nothing is known."""
    if info.custom is not None:
        return info.schema or {}
    name = definition_name(info)
    return definitions()[name] if name else {}


def metadata_schema() -> Schema:
    """The schema of every object's metadata."""
    return definitions()["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]


def resolve(schema: Schema) -> Schema:
    """Follow a `$ref`; other schemas come back as they are."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return resolve(definitions()[reference.rsplit("/", 1)[1]])


def child(schema: Schema, key: str) -> Schema:
    """The schema of a field, or of a map's value; empty when nothing is known."""
    whole = resolve(schema)
    found = whole.get("properties", {}).get(key)
    if found is None:
        found = whole.get("additionalProperties")
    return found if isinstance(found, dict) else {}


def items(schema: Schema) -> Schema:
    """The schema of a list's items."""
    found = resolve(schema).get("items")
    return found if isinstance(found, dict) else {}


def list_map_keys(schema: Schema) -> list[str] | None:
    """The keys of a list that is a map (`x-kubernetes-list-type: map`); None for another list."""
    kind = schema.get("x-kubernetes-list-type")
    if kind == "map":
        found: list[str] = schema.get("x-kubernetes-list-map-keys") or []
        return found
    if kind is None and schema.get("x-kubernetes-patch-merge-key") and _merges(schema):
        return [schema["x-kubernetes-patch-merge-key"]]
    return None


def is_set(schema: Schema) -> bool:
    """Whether a list is a set of scalars."""
    kind = schema.get("x-kubernetes-list-type")
    return kind == "set" or (kind is None and _merges(schema) and not schema.get("x-kubernetes-patch-merge-key"))


def is_atomic(schema: Schema) -> bool:
    """Whether a map is owned as one value."""
    whole = resolve(schema)
    return "atomic" in (schema.get("x-kubernetes-map-type"), whole.get("x-kubernetes-map-type"))


def merge_key(schema: Schema) -> str | None:
    """The key by which strategic merge patches match the items of a list; None: the list is replaced."""
    return schema.get("x-kubernetes-patch-merge-key") if _merges(schema) else None


def merges_scalars(schema: Schema) -> bool:
    """Whether a strategic merge patch adds to a list of scalars."""
    return _merges(schema) and not schema.get("x-kubernetes-patch-merge-key")


def retains_keys(schema: Schema) -> bool:
    """Whether `$retainKeys` applies to an object field."""
    return "retainKeys" in str(schema.get("x-kubernetes-patch-strategy", ""))


def _merges(schema: Schema) -> bool:
    return "merge" in str(schema.get("x-kubernetes-patch-strategy", ""))
