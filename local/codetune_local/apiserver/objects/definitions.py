"""CustomResourceDefinitions: whether one is structural, and the conditions of its life. Pure."""

import copy
import re
from collections.abc import Iterator
from typing import Any

from codetune_local.apiserver.objects.celrules import compile_failure
from codetune_local.apiserver.objects.structural import Cause, prune, validate

Obj = dict[str, Any]
DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer that keeps a definition until its objects are gone."""

_FORBIDDEN = (
    "$ref",
    "definitions",
    "dependencies",
    "patternProperties",
    "additionalItems",
    "deprecated",
    "discriminator",
)


def check_definition(obj: Obj) -> list[Cause]:
    """Everything that is wrong with a definition."""
    spec = obj["spec"]
    wanted = f"{spec['names']['plural']}.{spec['group']}"
    causes: list[Cause] = []
    if obj["metadata"]["name"] != wanted:
        why = f'Invalid value: "{obj["metadata"]["name"]}": must be spec.names.plural+"."+spec.group'
        causes.append(("metadata.name", "FieldValueInvalid", why))
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        why = "Invalid value: must have exactly one version marked as storage version"
        causes.append(("spec.versions", "FieldValueInvalid", why))
    for index, version in enumerate(spec["versions"]):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append((path, "FieldValueRequired", "Required value: schemas are required"))
            continue
        if schema.get("type", "object") != "object":
            why = f'Invalid value: "{schema["type"]}": must be object at the root'
            causes.append((f"{path}.type", "FieldValueInvalid", why))
        causes += _check_schema(schema, path, correlatable=True)
    return causes


def _check_schema(schema: Obj, path: str, *, correlatable: bool) -> Iterator[Cause]:
    yield from _check_type(schema, path)
    yield from _check_list(schema, path)
    yield from _check_rules(schema, path, correlatable)
    yield from _check_default(schema, path)
    for word in _FORBIDDEN:
        if word in schema:
            yield f"{path}.{word}", "FieldValueForbidden", "Forbidden: must not be set in a structural schema"
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            yield f"{path}.pattern", "FieldValueInvalid", f'Invalid value: "{schema["pattern"]}": {error}'
    by_key = schema.get("x-kubernetes-list-type") == "map"
    for where, inner in _inner_schemas(schema):
        below = correlatable and (where != ".items" or by_key)
        yield from _check_schema(inner, path + where, correlatable=below)


def _inner_schemas(schema: Obj) -> Iterator[tuple[str, Obj]]:
    for key, inner in (schema.get("properties") or {}).items():
        yield f".properties[{key}]", inner
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield f".{word}", schema[word]


def _check_type(schema: Obj, path: str) -> Iterator[Cause]:
    is_open = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not schema.get("type") and not is_open:
        yield f"{path}.type", "FieldValueRequired", "Required value: must not be empty for specified object fields"
    if schema.get("x-kubernetes-int-or-string") and schema.get("type"):
        why = "Forbidden: must be empty if x-kubernetes-int-or-string is true"
        yield f"{path}.type", "FieldValueForbidden", why
    if schema.get("properties") and schema.get("additionalProperties"):
        why = "Forbidden: additionalProperties and properties are mutual exclusive"
        yield f"{path}.additionalProperties", "FieldValueForbidden", why


def _check_list(schema: Obj, path: str) -> Iterator[Cause]:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        yield f"{path}.items", "FieldValueRequired", "Required value: must be specified"
        return
    if kind and schema.get("type") != "array":
        why = f'Invalid value: "{schema.get("type")}": must be array if x-kubernetes-list-type is specified'
        yield f"{path}.type", "FieldValueInvalid", why
    if schema.get("uniqueItems"):
        yield f"{path}.uniqueItems", "FieldValueForbidden", "Forbidden: uniqueItems cannot be set to true"
    if kind != "map":
        return
    if not keys:
        why = "Required value: must not be empty if x-kubernetes-list-type is map"
        yield f"{path}.x-kubernetes-list-map-keys", "FieldValueRequired", why
    items = schema.get("items") or {}
    for index, key in enumerate(keys):
        found = (items.get("properties") or {}).get(key)
        if found is None:
            why = f'Invalid value: "{key}": must refer to a property of the items'
            yield f"{path}.x-kubernetes-list-map-keys[{index}]", "FieldValueInvalid", why
        elif key not in (items.get("required") or []) and "default" not in found:
            why = "Required value: is in x-kubernetes-list-map-keys, so it must have a default or be required"
            yield f"{path}.items.properties[{key}].default", "FieldValueRequired", why


def _check_rules(schema: Obj, path: str, correlatable: bool) -> Iterator[Cause]:
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or []):
        here = f"{path}.x-kubernetes-validations[{index}]"
        for word in ("rule", "messageExpression"):
            failure = compile_failure(rule[word]) if word in rule else ""
            if failure:
                why = f'Invalid value: "{rule[word]}": compilation failed: {failure}'
                yield f"{here}.{word}", "FieldValueInvalid", why
        if "oldSelf" in rule["rule"] and not correlatable:
            why = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            yield f"{here}.rule", "FieldValueInvalid", f'Invalid value: "{rule["rule"]}": {why}'


def _check_default(schema: Obj, path: str) -> Iterator[Cause]:
    if "default" not in schema:
        return
    value = copy.deepcopy(schema["default"])
    for unknown in prune(value, schema):
        yield (
            f"{path}.default",
            "FieldValueInvalid",
            f"Invalid value: {unknown} is not in the schema and would be pruned",
        )
    for field, reason, message in validate(value, schema):
        where = f"{path}.default" if field == "<nil>" else f"{path}.default.{field}".rstrip(".")
        yield where, reason, message


def establish(definition: Obj, now: str) -> None:
    """Note in the status that the names are accepted and served."""
    status = definition.setdefault("status", {})
    conditions = status.setdefault("conditions", [])
    known = {found["type"] for found in conditions}
    for kind, reason, message in (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ):
        if kind not in known:
            condition = {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason}
            conditions.append({**condition, "message": message})
    status["acceptedNames"] = definition["spec"]["names"]
    status["storedVersions"] = [version["name"] for version in definition["spec"]["versions"] if version.get("storage")]
    finalizers = definition["metadata"].setdefault("finalizers", [])
    if definition["metadata"].get("deletionTimestamp"):
        _note_termination(conditions, now)
    elif CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    if not finalizers:
        del definition["metadata"]["finalizers"]


def _note_termination(conditions: list[Obj], now: str) -> None:
    if all(found["type"] != "Terminating" for found in conditions):
        text = "CustomResource deletion is in progress"
        condition = {"type": "Terminating", "status": "True", "lastTransitionTime": now}
        conditions.append({**condition, "reason": "InstanceDeletionInProgress", "message": text})


def is_terminating(definition: Obj | None) -> bool:
    """Whether a definition takes no new objects any more."""
    return bool(definition and definition["metadata"].get("deletionTimestamp"))
