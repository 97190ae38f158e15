"""Server-side apply and the bookkeeping of `managedFields`. Pure.

Follows the documented algorithm: what an applier names it owns; what it named before and names no more is removed
unless somebody else owns it; a value that another manager owns and that differs is a conflict, unless forced.
"""

import copy
import json
from typing import Any

from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.objects.fieldsets import fields_of, from_leaves, item_key, leaves, schema_with_metadata
from codetune_local.apiserver.objects.schemas import Schema, child, is_atomic, is_set, items, list_map_keys

Obj = dict[str, Any]
Path = tuple[str, ...]


def apply(
    live: Obj | None, applied: Obj, schema: Schema, *, manager: str, force: bool, subresource: str, now: str
) -> Obj:
    """The object after an apply, with its managedFields. Raises: ApiError on conflicts."""
    config = copy.deepcopy(applied)
    config["metadata"].pop("managedFields", None)
    wanted = leaves(fields_of(config, schema))
    if live is None:
        result: Obj = config
        _write_entries(result, [_entry(manager, "Apply", wanted, result, subresource, now)])
        return result
    entries = list(live["metadata"].get("managedFields") or [])
    mine = [entry for entry in entries if _is(entry, manager, "Apply", subresource)]
    others = [entry for entry in entries if entry not in mine]
    whole = schema_with_metadata(schema)
    contested = _contested(live, config, wanted, others, whole)
    if contested and not force:
        raise _conflict(contested, live)
    previous = set().union(*(leaves(entry["fieldsV1"]) for entry in mine)) if mine else set()
    owned_by_others = set().union(*(leaves(entry["fieldsV1"]) for entry in others)) if others else set()
    result = _merge(copy.deepcopy(live), config, whole)
    # Whole items first: without its keys an item could no longer be found.
    for path in sorted(previous - wanted - owned_by_others, key=lambda path: (path[-1] != ".", path)):
        if not any(other[: len(path)] == path for other in wanted | owned_by_others if other != path):
            _remove(result, path, whole)
    lost = {path for paths in contested.values() for path in paths}
    kept = [_shrink(entry, lost) for entry in others]
    entry = _entry(manager, "Apply", wanted, config, subresource, now)
    if mine and leaves(mine[0]["fieldsV1"]) == wanted:
        entry["time"] = mine[0].get("time", now)
    _write_entries(result, [*(found for found in kept if found["fieldsV1"]), entry])
    return result


def track_update(old: Obj | None, new: Obj, schema: Schema, *, manager: str, subresource: str, now: str) -> None:
    """Note in `new` that `manager` set what differs from `old`; what is gone is owned by nobody any more."""
    entries = list(
        new["metadata"].get("managedFields") or (old or {"metadata": {}})["metadata"].get("managedFields") or []
    )
    if entries == [{}]:  # the documented way to forget all owners
        _write_entries(new, [])
        return
    whole = schema_with_metadata(schema)
    present = leaves(fields_of(new, schema))
    if old is None:
        changed = present
    else:
        changed = {path for path in present if _value(old, path, whole) != _value(new, path, whole)}
    kept = []
    mine: set[Path] = set()
    since = ""
    for entry in entries:
        owned = leaves(entry["fieldsV1"])
        if _is(entry, manager, "Update", subresource):
            mine, since = owned, entry.get("time", "")
            continue
        still = {path for path in owned if path not in changed and (path in present or _exists(new, path, whole))}
        if still:
            kept.append({**entry, "fieldsV1": from_leaves(still)})
    total = {path for path in mine if path in present or _exists(new, path, whole)} | changed
    if total:
        mine_now = _entry(manager, "Update", total, new, subresource, now)
        kept.append({**mine_now, "time": since} if since and total == mine else mine_now)
    _write_entries(new, kept)


def same_owners(one: Obj, other: Obj) -> bool:
    """Whether two objects have the same managedFields, in any order."""
    first, second = (obj["metadata"].get("managedFields") or [] for obj in (one, other))
    return len(first) == len(second) and all(entry in second for entry in first)


def _write_entries(obj: Obj, entries: list[Obj]) -> None:
    obj["metadata"].pop("managedFields", None)
    if entries:
        obj["metadata"]["managedFields"] = entries


def _entry(manager: str, operation: str, paths: set[Path], obj: Obj, subresource: str, now: str) -> Obj:
    entry = {"manager": manager, "operation": operation, "apiVersion": obj["apiVersion"], "time": now}
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": from_leaves(paths)}
    return {**entry, "subresource": subresource} if subresource else entry


def _is(entry: Obj, manager: str, operation: str, subresource: str) -> bool:
    found = (entry.get("manager"), entry.get("operation"), entry.get("subresource", ""))
    return found == (manager, operation, subresource)


def _contested(live: Obj, config: Obj, wanted: set[Path], others: list[Obj], schema: Schema) -> dict[str, set[Path]]:
    found: dict[str, set[Path]] = {}
    for entry in others:
        both = leaves(entry["fieldsV1"]) & wanted
        differing = {
            path for path in both if path[-1] != "." and _value(live, path, schema) != _value(config, path, schema)
        }
        if differing:
            name = entry["manager"] + (
                f'" with subresource "{entry["subresource"]}' if entry.get("subresource") else ""
            )
            using = f'"{name}" using {entry["apiVersion"]}' if entry["operation"] == "Update" else f'"{name}"'
            found.setdefault(using, set()).update(differing)
    return found


def _conflict(contested: dict[str, set[Path]], live: Obj) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": _dotted(path)}
        for who, paths in contested.items()
        for path in sorted(paths)
    ]
    count = len(causes)
    listed = "\n".join(f"{cause['message']}: {cause['field']}" for cause in causes) if count > 1 else ""
    one = f"{causes[0]['message']}: {causes[0]['field']}"
    text = f"Apply failed with {count} conflict{'s' if count > 1 else ''}: {listed or one}"
    return ApiError(409, "Conflict", text, {"name": live["metadata"]["name"], "causes": causes})


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += "." + part[2:]
        elif part != ".":
            inner = part[2:]
            text += (
                "["
                + (
                    ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(inner).items())
                    if part[0] == "k"
                    else "=" + inner
                )
                + "]"
            )
    return text


def _merge(live: Any, config: Any, schema: Schema) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and not is_atomic(schema):
        for key, value in config.items():
            live[key] = _merge(live[key], value, child(schema, key)) if key in live else copy.deepcopy(value)
        return live
    if isinstance(config, list) and isinstance(live, list):
        keys = list_map_keys(schema)
        if keys is not None:
            inner = items(schema)
            index = {item_key(item, keys, inner): item for item in live}
            for item in config:
                found = index.get(item_key(item, keys, inner))
                if found is None:
                    live.append(copy.deepcopy(item))
                else:
                    _merge(found, item, inner)
            return live
        if is_set(schema):
            return live + [item for item in config if item not in live]
    return copy.deepcopy(config)


def _walk(obj: Any, path: Path, schema: Schema) -> tuple[Any, Schema, bool]:
    """The value at a path, its schema, and whether it is there."""
    for part in path:
        if part == ".":
            continue
        if part.startswith("f:"):
            if not isinstance(obj, dict) or part[2:] not in obj:
                return None, {}, False
            obj, schema = obj[part[2:]], child(schema, part[2:])
        else:
            position = _position(obj, part, schema)
            if position is None:
                return None, {}, False
            obj, schema = obj[position], items(schema)
    return obj, schema, True


def _position(values: Any, part: str, schema: Schema) -> int | None:
    if not isinstance(values, list):
        return None
    if part.startswith("v:"):
        wanted = json.loads(part[2:])
        return values.index(wanted) if wanted in values else None
    keys = sorted(json.loads(part[2:]))
    inner = items(schema)
    declared = list_map_keys(schema) or keys
    return next(
        (at for at, item in enumerate(values) if isinstance(item, dict) and item_key(item, declared, inner) == part),
        None,
    )


def _value(obj: Obj, path: Path, schema: Schema) -> Any:
    found, _, there = _walk(obj, path, schema)
    return (True, None if path[-1] == "." else found) if there else (False, None)


def _exists(obj: Obj, path: Path, schema: Schema) -> bool:
    return _walk(obj, path, schema)[2]


def _remove(obj: Obj, path: Path, schema: Schema) -> None:
    target = path[:-1] if path[-1] == "." else path
    holder, inner, there = _walk(obj, target[:-1], schema)
    if not there or not target:
        return
    part = target[-1]
    if part.startswith("f:") and isinstance(holder, dict):
        holder.pop(part[2:], None)
    elif (position := _position(holder, part, inner)) is not None:
        del holder[position]


def _shrink(entry: Obj, lost: set[Path]) -> Obj:
    return {**entry, "fieldsV1": from_leaves(leaves(entry["fieldsV1"]) - lost)}
