"""`x-kubernetes-validations`: CEL rules of custom resources, transition rules included."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import celpy
from celpy import celtypes
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from codetune_local.apiserver.objects.correlating import MISSING, old_field, old_item
from codetune_local.apiserver.objects.schemas import Schema
from codetune_local.apiserver.objects.structural import Cause

_ENVIRONMENT = celpy.Environment()


@lru_cache(maxsize=2048)
def _program(rule: str) -> celpy.Runner:
    return _ENVIRONMENT.program(_ENVIRONMENT.compile(rule))


def compile_failure(rule: str) -> str:
    """What a rule can't be compiled for; empty when it can."""
    try:
        _program(rule)
    except (CELParseError, CELEvalError) as error:
        return str(error).splitlines()[0]
    return ""


def has_rules(schema: Schema) -> bool:
    """Whether there is any rule, at whichever level."""
    inner = [schema.get("items"), schema.get("additionalProperties"), *(schema.get("properties") or {}).values()]
    return "x-kubernetes-validations" in schema or any(has_rules(each) for each in inner if isinstance(each, dict))


def check_rules(
    new: Any, old: Any, schema: Schema, path: str = "", *, is_update: bool = False, same_above: bool = False
) -> list[Cause]:
    """Every rule that is false; a rule that names `oldSelf` is looked at only where there was a value before.

    A value that an update leaves as it was is held against the other rules no more ("validation ratcheting", since
    Kubernetes 1.33): a definition that becomes stricter does not make old objects unchangeable. An item that can't be
    told from others by a key is as it was where its list is: `same_above`.
    """
    causes: list[Cause] = []
    is_same = is_update and (same_above if old is MISSING else new == old)
    for rule in schema.get("x-kubernetes-validations") or []:
        is_transition = "oldSelf" in rule["rule"]
        if (not is_update or old is MISSING) if is_transition else is_same:
            continue
        message = _evaluate(rule, new, old if is_transition else MISSING, path)
        if message:
            where = f"{path}{rule.get('fieldPath', '')}".lstrip(".") or "<nil>"
            causes.append((where, f"FieldValue{rule.get('reason', 'Invalid').removeprefix('FieldValue')}", message))
    for key, value, before, inner in _children(new, old, schema):
        where = f"{path}.{key}" if path and key[0] != "[" else path + key
        causes += check_rules(value, before, inner, where, is_update=is_update, same_above=is_same)
    return causes


def _evaluate(rule: dict[str, Any], new: Any, old: Any, path: str) -> str:
    activation = {"self": _to_cel(new)}
    if old is not MISSING:
        activation["oldSelf"] = _to_cel(old)
    try:
        if _program(rule["rule"]).evaluate(activation):
            return ""
        text = rule.get("message") or f"failed rule: {rule['rule']}"
        if "messageExpression" in rule:
            text = str(_program(rule["messageExpression"]).evaluate(activation))
    except CELEvalError as error:
        text = f"rule evaluation error: {error}: {rule['rule']}"
    shown = (
        f'"{new}"'
        if isinstance(new, str)
        else "object"
        if isinstance(new, dict)
        else "array"
        if isinstance(new, list)
        else str(new).lower()
    )
    if isinstance(new, dict | list):
        shown = f'"{shown}"'
    return f"Invalid value: {shown}: {text}"


def _children(new: Any, old: Any, schema: Schema) -> Iterator[tuple[str, Any, Any, Schema]]:
    if isinstance(new, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, value in new.items():
            inner = properties.get(key, extra)
            if isinstance(inner, dict):
                yield (key if key in properties else f"[{key}]"), value, old_field(old, key), inner
    elif isinstance(new, list) and isinstance(schema.get("items"), dict):
        for index, value in enumerate(new):
            yield f"[{index}]", value, old_item(value, old, schema), schema["items"]


def _to_cel(value: Any) -> Any:
    if isinstance(value, dict):
        return celtypes.MapType({celtypes.StringType(key): _to_cel(found) for key, found in value.items()})
    if isinstance(value, list):
        return celtypes.ListType([_to_cel(found) for found in value])
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, int):
        return celtypes.IntType(value)
    if isinstance(value, float):
        return celtypes.DoubleType(value)
    return celtypes.StringType(value) if isinstance(value, str) else value
