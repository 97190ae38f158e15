"""What happens to an object between the wire and the store: pruning, defaults, validation, immutability. Pure."""

from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import ApiError, bad_request, invalid
from codetune_local.apiserver.objects.builtin_rules import check_builtin
from codetune_local.apiserver.objects.celrules import check_rules, has_rules
from codetune_local.apiserver.objects.correlating import MISSING
from codetune_local.apiserver.objects.defaulting import apply_builtin_defaults
from codetune_local.apiserver.objects.definitions import DEFINITIONS, check_definition
from codetune_local.apiserver.objects.immutability import check_immutable
from codetune_local.apiserver.objects.metadata import check_metadata
from codetune_local.apiserver.objects.schemas import metadata_schema, resolve, schema_of
from codetune_local.apiserver.objects.structural import TYPE_REASON, Cause, apply_defaults, drop_nulls, prune, validate

Obj = dict[str, Any]
_ROOT = ("apiVersion", "kind", "metadata")
_BLOCKING = frozenset(
    f"FieldValue{reason}" for reason in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
)
"""With one of these wrong, rules are not looked at: they could stumble over it."""
_UNCHECKED: Cause = (
    "<nil>",
    "FieldValueInvalid",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)


def find_unknown(info: ResourceInfo, obj: Obj) -> list[str]:
    """Remove the fields that the kind doesn't have; returns their paths."""
    schema = schema_of(info)
    unknown = prune(obj, schema, root=True) if schema else []
    if isinstance(obj.get("metadata"), dict):
        unknown += prune(obj["metadata"], metadata_schema(), "metadata")
    return unknown


def fill_in(info: ResourceInfo, obj: Obj) -> None:
    """Drop nulls and apply defaults. Raises: ApiError (400) when what a default hangs on has the wrong type."""
    schema = schema_of(info)
    drop_nulls({key: value for key, value in obj.items() if key != "metadata"}, schema)
    drop_nulls(obj["metadata"], metadata_schema())
    if info.custom is not None:
        apply_defaults(obj, schema)
        return
    causes = validate(_body(obj), _without_root(schema))
    _check_decodable(info, causes)
    if not causes:  # what is missing is told by check(); defaults would stumble over it
        apply_builtin_defaults(info.key, obj)


def _body(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key not in _ROOT}


def _without_root(schema: Obj) -> Obj:
    whole = resolve(schema)
    return {**whole, "required": [key for key in whole.get("required") or [] if key not in _ROOT]}


def _check_decodable(info: ResourceInfo, causes: list[Cause]) -> None:
    """Built-in kinds are decoded into typed fields before anything else looks at them."""
    for field, reason, message in causes:
        if reason == TYPE_REASON:
            about = f'{info.kind} in version "{info.version}" cannot be handled as a {info.kind}'
            raise bad_request(f"{about}: json: cannot unmarshal into field {info.kind}.{field}: {message}")


def check(info: ResourceInfo, obj: Obj, old: Obj | None) -> None:
    """Validate a whole object. Raises: ApiError (422) with everything that is wrong."""
    schema = schema_of(info)
    before = _body(old) if old is not None and info.custom is not None else MISSING
    causes: list[Cause] = check_metadata(info, obj["metadata"])
    causes += validate(_body(obj), _without_root(schema), old=before)
    if info.custom is None:  # their list keys are checked one by one, e.g. a variable may be set twice
        causes = [cause for cause in causes if cause[1] != "FieldValueDuplicate"]
    if info.custom is not None:
        causes += _check_rules(obj, old, resolve(schema), causes)
    elif not causes:
        causes += check_builtin(info.key, obj)
        causes += check_definition(obj) if info.key == DEFINITIONS else []
        causes += check_immutable(info, obj, old) if old is not None else []
    if causes:
        raise invalid(info.kind, info.group, obj["metadata"]["name"], causes)


def _check_rules(obj: Obj, old: Obj | None, schema: Obj, causes: list[Cause]) -> list[Cause]:
    """The rules of a custom kind, or the note that they were not looked at for what is wrong already."""
    if any(reason in _BLOCKING for _, reason, _ in causes):
        return [_UNCHECKED] if has_rules(schema) else []
    before = _rule_view(old) if old else MISSING
    return check_rules(_rule_view(obj), before, schema, is_update=old is not None)


def _rule_view(obj: Obj) -> Obj:
    metadata = {key: obj["metadata"][key] for key in ("name", "generateName") if key in obj["metadata"]}
    return {**obj, "metadata": metadata}


def check_type(info: ResourceInfo, obj: Any) -> None:
    """The body must be an object of this kind. Raises: ApiError (400)."""
    if not isinstance(obj, dict):
        raise bad_request("the body of the request must be a JSON object")
    kind, version = obj.setdefault("kind", info.kind), obj.setdefault("apiVersion", info.api_version)
    if (kind, version) != (info.kind, info.api_version):
        raise bad_request(
            f"the API version in the data ({version}, Kind={kind}) does not match the expected API version "
            f"({info.api_version}, Kind={info.kind})"
        )
    if not isinstance(obj.setdefault("metadata", {}), dict):
        raise bad_request("metadata must be an object")


def strict_error(info: ResourceInfo, complaints: list[str]) -> ApiError:
    """The answer to unknown and doubled fields under fieldValidation=Strict."""
    listed = ", ".join(complaints)
    return bad_request(
        f'{info.kind} in version "{info.version}" cannot be handled as a {info.kind}: strict decoding error: {listed}'
    )
