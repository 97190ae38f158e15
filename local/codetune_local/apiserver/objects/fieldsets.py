"""Sets of fields as `managedFields` writes them (fieldsV1), and how they are taken from objects. Pure.

A field set is a nested dict: `{"f:spec": {"f:replicas": {}}}`; items of list-maps are `k:{…}`, of sets `v:…`, and "."
stands for the item itself.
"""

import json
from typing import Any

from codetune_local.apiserver.objects.schemas import Schema, child, is_atomic, is_set, items, list_map_keys

Fields = dict[str, Any]
_IGNORED_METADATA = frozenset(
    [
        "managedFields",
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "selfLink",
        "name",
        "namespace",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]
)


def fields_of(obj: dict[str, Any], schema: Schema) -> Fields:
    """Every field that an object sets."""
    found: Fields = {}
    for key, value in obj.items():
        if key in ("apiVersion", "kind"):
            continue
        if key == "metadata":
            value = {name: inner for name, inner in value.items() if name not in _IGNORED_METADATA}
            if value:
                found["f:metadata"] = _of_object(value, _METADATA)
        else:
            found[f"f:{key}"] = _of(value, child(schema, key))
    return found


_METADATA: Schema = {
    "properties": {
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ownerReferences": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
            "items": {"type": "object", "x-kubernetes-map-type": "atomic"},
        },
    }
}


def schema_with_metadata(schema: Schema) -> Schema:
    """A kind's schema whose metadata merges as ObjectMeta does."""
    from codetune_local.apiserver.objects.schemas import resolve

    whole = resolve(schema)
    return {**whole, "properties": {**(whole.get("properties") or {}), "metadata": _METADATA}}


def _of(value: Any, schema: Schema) -> Fields:
    if isinstance(value, dict) and value and not is_atomic(schema):
        return _of_object(value, schema)
    if isinstance(value, list):
        keys = list_map_keys(schema)
        if keys is not None:
            inner = items(schema)
            return {
                item_key(item, keys, inner): {".": {}, **_of(item, inner)} for item in value if isinstance(item, dict)
            }
        if is_set(schema):
            return {f"v:{json.dumps(item)}": {} for item in value}
    return {}


def _of_object(value: dict[str, Any], schema: Schema) -> Fields:
    return {f"f:{key}": _of(inner, child(schema, key)) for key, inner in value.items()}


def item_key(item: dict[str, Any], keys: list[str], schema: Schema) -> str:
    """`k:{"name":"a"}`; a key that the item leaves out has its schema's default."""
    identity = {key: item.get(key, child(schema, key).get("default")) for key in keys}
    return "k:" + json.dumps(
        {key: value for key, value in sorted(identity.items()) if value is not None}, separators=(",", ":")
    )


def leaves(fields: Fields, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of all leaves; "." counts as one."""
    found = set()
    for key, inner in fields.items():
        here = (*path, key)
        found |= leaves(inner, here) if inner else {here}
    return found


def from_leaves(paths: set[tuple[str, ...]]) -> Fields:
    """The field set with these leaves."""
    fields: Fields = {}
    for path in sorted(paths):
        inner = fields
        for key in path:
            inner = inner.setdefault(key, {})
    return fields
