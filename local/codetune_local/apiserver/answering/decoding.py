"""Bodies: YAML, and JSON with fields that are set twice (the last one counts, strict validation complains). Pure."""

import json
from typing import Any

import yaml

# libyaml, where PyYAML was built with it: a Job of ours takes 1 ms instead of 10.
_YamlLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Object(dict[str, Any]):
    """An object that remembers its doubled keys."""

    doubled: tuple[str, ...] = ()


def decode_json(raw: bytes) -> Any:
    """Raises: json.JSONDecodeError, UnicodeDecodeError."""
    return json.loads(raw, object_pairs_hook=_build)


def decode_yaml(raw: bytes) -> Any:
    """Raises: yaml.YAMLError."""
    return yaml.load(raw, Loader=_YamlLoader)


def _build(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        found.doubled = tuple(key for index, key in enumerate(keys) if key in keys[:index])
    return found


def find_duplicates(value: Any, path: str = "") -> list[str]:
    """The paths of the doubled keys of what `decode_json` read."""
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in find_duplicates(item, f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    prefix = f"{path}." if path else ""
    here = [prefix + key for key in getattr(value, "doubled", ())]
    return here + [found for key, item in value.items() for found in find_duplicates(item, prefix + key)]
