"""What of an old value a part of the new one is compared with, where an update is validated. Pure."""

from typing import Any

from codetune_local.apiserver.objects.schemas import Schema, list_map_keys

MISSING = object()
"""There is nothing to compare with: nothing was there before, or it can't be told from others."""


def old_field(old: Any, key: str) -> Any:
    """The old value of a field."""
    return old.get(key, MISSING) if isinstance(old, dict) else MISSING


def old_item(item: Any, old: Any, schema: Schema) -> Any:
    """The old item of a list-map with the same keys; other lists have no item to compare with."""
    keys = list_map_keys(schema)
    if not keys or not isinstance(old, list) or not isinstance(item, dict):
        return MISSING
    identity = [item.get(key) for key in keys]
    found = (each for each in old if isinstance(each, dict) and [each.get(key) for key in keys] == identity)
    return next(found, MISSING)
