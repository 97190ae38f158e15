"""The three patch forms of Kubernetes: JSON patch, merge patch (RFC 7386) and strategic merge patch. Pure."""

import copy
from typing import Any

import jsonpatch

from codetune_local.apiserver.errors import ApiError, bad_request
from codetune_local.apiserver.objects.schemas import Schema, child, items, merge_key, merges_scalars

Obj = dict[str, Any]


def json_patch(obj: Obj, operations: list[Obj]) -> Obj:
    """RFC 6902. Raises: ApiError."""
    try:
        found: Obj = jsonpatch.apply_patch(obj, operations)
    except jsonpatch.JsonPatchTestFailed as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    return found


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(target: Any, patch: Any, schema: Schema) -> Any:
    """A merge patch in which lists merge by the key that their schema names. Raises: ApiError."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(result, key, value, patch, child(schema, key))
    _delete_scalars(result, patch)
    return result


def _merge_field(result: Obj, key: str, value: Any, patch: Obj, schema: Schema) -> None:
    if value is None:
        result.pop(key, None)
    elif isinstance(value, list):
        order = patch.get(f"$setElementOrder/{key}")
        result[key] = _merge_list(result.get(key) or [], value, order, schema, key)
    else:
        result[key] = strategic_merge_patch(result.get(key), value, schema)


def _delete_scalars(result: Obj, patch: Obj) -> None:
    for key, values in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            result[field] = [found for found in result.get(field) or [] if found not in values]
        elif key.startswith("$setElementOrder/") and key.split("/", 1)[1] not in patch:
            field = key.split("/", 1)[1]
            if all(not isinstance(found, dict) for found in values):
                result[field] = _order(result.get(field) or [], values, lambda found: found)


def _merge_list(old: list[Any], new: list[Any], order: list[Any] | None, schema: Schema, field: str) -> list[Any]:
    key = merge_key(schema)
    if key is None:
        if not merges_scalars(schema):
            return [copy.deepcopy(value) for value in new if not (isinstance(value, dict) and "$patch" in value)]
        merged = list(old) + [value for value in new if value not in old]
        return _order(merged, order, lambda found: found) if order else merged
    # The directive replaces the whole list, wherever in it it stands.
    is_replaced = any(
        isinstance(value, dict) and value.get("$patch") == "replace" and key not in value for value in new
    )
    result: list[Any] = [] if is_replaced else list(old)
    for value in new:
        if not isinstance(value, dict):
            raise bad_request(f"{field}: every item of this list must be an object with {key}")
        _merge_item(result, value, key, field, items(schema))
    if order:
        wanted = [found.get(key) for found in order if isinstance(found, dict)]
        return _order(result, wanted, lambda found: found.get(key))
    return result


def _merge_item(result: list[Any], value: Obj, key: str, field: str, schema: Schema) -> None:
    if value.get("$patch") == "replace" and key not in value:
        return
    if key not in value:
        raise bad_request(f"{field}: an item of this list lacks its merge key {key}")
    at = next((index for index, found in enumerate(result) if found.get(key) == value[key]), None)
    if value.get("$patch") == "delete":
        if at is not None:
            del result[at]
    elif at is None:
        result.append(strategic_merge_patch({}, value, schema))
    else:
        result[at] = strategic_merge_patch(result[at], value, schema)


def _order(values: list[Any], wanted: list[Any], key_of: Any) -> list[Any]:
    """`values` in the wanted order; those that the order does not name keep their place after what precedes them."""
    ranks = {found: index for index, found in enumerate(wanted)}
    last, keyed = -1, []
    for position, value in enumerate(values):
        rank = ranks.get(key_of(value))
        last = last if rank is None else rank
        keyed.append((rank if rank is not None else last, rank is None, position, value))
    return [value for *_, value in sorted(keyed, key=lambda entry: entry[:3])]
