"""Structural schemas: pruning, defaulting and validation of objects, as the API server does them. Pure."""

import base64
import copy
import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from codetune_local.apiserver.objects.correlating import MISSING, old_field, old_item
from codetune_local.apiserver.objects.schemas import Schema, list_map_keys, resolve

Cause = tuple[str, str, str]
"""Field path, reason, message: one entry of a Status's causes."""

TYPE_REASON = "FieldValueTypeInvalid"
_JSON_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}
_TYPE_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
_META = {"apiVersion", "kind", "metadata"}


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = False) -> list[str]:
    """Remove unknown fields in place; returns their paths."""
    whole = resolve(schema)
    if isinstance(value, list):
        inner = whole.get("items")
        if not isinstance(inner, dict):
            return []
        return [found for index, item in enumerate(value) for found in prune(item, inner, f"{path}[{index}]")]
    if not isinstance(value, dict) or not whole:
        return []
    if "$ref" in schema and not whole.get("properties") and not isinstance(whole.get("additionalProperties"), dict):
        return []  # a built-in type that holds anything, like FieldsV1
    return _prune_object(value, whole, path, root)


def _prune_object(value: dict[str, Any], schema: Schema, path: str, root: bool) -> list[str]:
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    open_ended = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or extra is True or extra == {}
    open_ended = open_ended or (not properties and not isinstance(extra, dict) and not schema.get("type"))
    unknown = []
    for key in list(value):
        here = f"{path}.{key}" if path else key
        inner = properties.get(key, extra)
        if root and key in _META:
            continue
        if isinstance(inner, dict) and inner:
            unknown += prune(value[key], inner, here)
        elif not open_ended and key not in properties:
            del value[key]
            unknown.append(here)
    return unknown


def apply_defaults(value: Any, schema: Schema) -> None:
    """Fill in `default`s in place, at every level that is present."""
    if isinstance(value, dict):
        for key, inner in (schema.get("properties") or {}).items():
            if "default" in inner and (key not in value or (value[key] is None and not inner.get("nullable"))):
                value[key] = copy.deepcopy(inner["default"])
            if key in value:
                apply_defaults(value[key], inner)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - (schema.get("properties") or {}).keys():
                apply_defaults(value[key], extra)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            apply_defaults(item, schema["items"])


def drop_nulls(value: Any, schema: Schema) -> None:
    """Remove nulls where the schema doesn't allow them, as the server does before it validates."""
    whole = resolve(schema)
    if isinstance(value, dict):
        properties = whole.get("properties") or {}
        for key in list(value):
            inner = properties.get(key, whole.get("additionalProperties"))
            if value[key] is None and not (isinstance(inner, dict) and inner.get("nullable")):
                del value[key]
            elif isinstance(inner, dict):
                drop_nulls(value[key], inner)
    elif isinstance(value, list) and isinstance(whole.get("items"), dict):
        for item in value:
            drop_nulls(item, whole["items"])


def validate(
    value: Any, schema: Schema, path: str = "", *, old: Any = MISSING, same_above: bool = False
) -> list[Cause]:
    """Everything that is wrong with a value.

    What an update leaves as it was may be wrong ("validation ratcheting", since Kubernetes 1.33), but for fields that
    have to be there, doubled items, and what `anyOf` and the like ask for.

    Args:
        value: The new value.
        schema: What it should be like.
        path: Where it is.
        old: The value of a custom resource that an update replaces.
        same_above: Whether what holds the value is as it was, where there is no old value to compare with.
    """
    schema = resolve(schema)
    is_same = same_above if old is MISSING else value == old
    wrong_type = _validate_type(value, schema, path)
    if wrong_type or value is None:
        return [] if is_same else wrong_type
    causes = [] if is_same else _validate_alone(value, schema, path)
    if isinstance(value, list):
        causes += _validate_list(value, schema, path, old, is_same)
    elif isinstance(value, dict):
        causes += _validate_object(value, schema, path, old, is_same)
    return causes + _validate_junctors(value, schema, path)


def _validate_type(value: Any, schema: Schema, path: str) -> list[Cause]:
    wanted = schema.get("type")
    if value is None:
        return [] if schema.get("nullable") or not wanted else [_type_error(path, value, wanted)]
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        is_right = isinstance(value, int | str) and not isinstance(value, bool)
        return [] if is_right else [_type_error(path, value, "integer,string")]
    return [] if wanted is None or _is_type(value, wanted) else [_type_error(path, value, wanted)]


def _validate_alone(value: Any, schema: Schema, path: str) -> list[Cause]:
    """What is wrong with a value as a whole, whatever is in it."""
    causes = _validate_enum(value, schema, path)
    if isinstance(value, str):
        return causes + _validate_string(value, schema, path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return causes + _validate_number(value, schema, path)
    return causes + _validate_count(value, schema, path) if isinstance(value, list | dict) else causes


def _is_type(value: Any, wanted: str) -> bool:
    if wanted == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if wanted == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, _JSON_TYPES[wanted])


def _type_error(path: str, value: Any, wanted: str) -> Cause:
    got = "null" if value is None else _TYPE_NAMES[type(value)]
    message = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    return path or "<nil>", TYPE_REASON, message


def _show(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _wrong(path: str, value: Any, why: str) -> Cause:
    return path, "FieldValueInvalid", f"Invalid value: {_show(value)}: {path} in body {why}"


def _validate_enum(value: Any, schema: Schema, path: str) -> list[Cause]:
    allowed = schema.get("enum")
    if allowed is None or value in allowed:
        return []
    shown = ", ".join(_show(found) for found in allowed)
    return [(path, "FieldValueNotSupported", f"Unsupported value: {_show(value)}: supported values: {shown}")]


def _validate_string(value: str, schema: Schema, path: str) -> list[Cause]:
    causes = []
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        causes.append((path, "FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes"))
    if "minLength" in schema and len(value) < schema["minLength"]:
        causes.append(_wrong(path, value, f"should be at least {schema['minLength']} chars long"))
    if "pattern" in schema and not re.search(schema["pattern"], value):
        causes.append(_wrong(path, value, f"should match '{schema['pattern']}'"))
    form = schema.get("format", "")
    if form in _FORMATS and not _FORMATS[form](value):
        why = f'Invalid value: {_show(value)}: {path} in body must be of type {form}: "{value}"'
        causes.append((path, TYPE_REASON, why))
    return causes


def _is_time(value: str) -> bool:
    return datetime.fromisoformat(value).tzinfo is not None


def _reads(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            return parse(value) is not False
        except ValueError:
            return False

    return check


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _reads(_is_time),
    "date": _reads(date.fromisoformat),
    "byte": _reads(lambda value: base64.b64decode(value, validate=True)),
    "uuid": _reads(uuid.UUID),
    "ipv4": _reads(ipaddress.IPv4Address),
    "ipv6": _reads(ipaddress.IPv6Address),
}


def _validate_number(value: float, schema: Schema, path: str) -> list[Cause]:
    causes = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") is True and value == low)):
        sign = "greater than" if schema.get("exclusiveMinimum") is True else "greater than or equal to"
        causes.append(_wrong(path, value, f"should be {sign} {low}"))
    if high is not None and (value > high or (schema.get("exclusiveMaximum") is True and value == high)):
        sign = "less than" if schema.get("exclusiveMaximum") is True else "less than or equal to"
        causes.append(_wrong(path, value, f"should be {sign} {high}"))
    if "multipleOf" in schema and value % schema["multipleOf"]:
        causes.append(_wrong(path, value, f"should be a multiple of {schema['multipleOf']}"))
    return causes


def _validate_count(value: list[Any] | dict[str, Any], schema: Schema, path: str) -> list[Cause]:
    most = schema.get("maxItems" if isinstance(value, list) else "maxProperties")
    causes: list[Cause] = []
    if most is not None and len(value) > most:
        causes.append((path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items"))
    if isinstance(value, list) and len(value) < schema.get("minItems", 0):
        causes.append(_wrong(path, len(value), f"should have at least {schema['minItems']} items"))
    return causes


def _validate_list(value: list[Any], schema: Schema, path: str, old: Any, is_same: bool) -> list[Cause]:
    causes: list[Cause] = []
    inner = schema.get("items")
    if isinstance(inner, dict):
        for index, item in enumerate(value):
            before = old_item(item, old, schema)
            causes += validate(item, inner, f"{path}[{index}]", old=before, same_above=is_same)
    return causes + _validate_unique(value, schema, path)


def _validate_unique(value: list[Any], schema: Schema, path: str) -> list[Cause]:
    keys = list_map_keys(schema) if "x-kubernetes-list-type" in schema else None
    if keys is None and schema.get("x-kubernetes-list-type") != "set":
        return []
    seen: list[Any] = []
    causes = []
    for index, item in enumerate(value):
        identity = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
        if identity in seen:
            causes.append((f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {_identity(identity)}"))
        seen.append(identity)
    return causes


def _identity(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}":{_show(found)}' for key, found in value.items()) + "}"
    return _show(value)


def _validate_object(value: dict[str, Any], schema: Schema, path: str, old: Any, is_same: bool) -> list[Cause]:
    causes: list[Cause] = []
    for key in schema.get("required") or []:
        if key not in value:
            causes.append((f"{path}.{key}" if path else key, "FieldValueRequired", "Required value"))
    properties = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, item in value.items():
        inner = properties.get(key, extra)
        if isinstance(inner, dict):
            where = f"{path}.{key}" if path else key
            causes += validate(item, inner, where, old=old_field(old, key), same_above=is_same)
    return causes


def _validate_junctors(value: Any, schema: Schema, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for inner in schema.get("allOf") or []:
        causes += validate(value, inner, path)
    for junctor, wanted in (("anyOf", None), ("oneOf", 1)):
        options = schema.get(junctor)
        if options:
            valid = sum(not validate(value, option, path) for option in options)
            if not valid or (wanted is not None and valid != wanted):
                which = "at least one schema (anyOf)" if junctor == "anyOf" else "one and only one schema (oneOf)"
                causes.append(
                    (path or "<nil>", "FieldValueInvalid", f'Invalid value: "": "{path}" must validate {which}')
                )
    if "not" in schema and not validate(value, schema["not"], path):
        causes.append(
            (path or "<nil>", "FieldValueInvalid", f'Invalid value: "": "{path}" must not validate the schema (not)')
        )
    return causes
