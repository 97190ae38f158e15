"""Writes docs/api-reference.md from the CRDs' schemas: `python -m codetune_api.reference [--check]`."""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from codetune_api.crd import KINDS, MATCHES, REPOSITORY, WHOLE_NUMBER, Kind, Schema, build_schema, write_or_check
from codetune_api.metadata import API_VERSION
from codetune_api.model import INT_OR_STRING

PATH = REPOSITORY / "docs" / "api-reference.md"
_INTRODUCTION = f"""# API reference

Group and version `{API_VERSION}`; all kinds are namespaced and in the category `codetune` (`kubectl get codetune`).
Written by `python -m codetune_api.reference` from the models in `api/`.
"""
_BOUNDS = {
    "minimum": "≥ {}", "maximum": "≤ {}", "pattern": "`{}`", "maxLength": "at most {} characters",
    "maxItems": "at most {} entries", "minItems": "at least {} entries",
}  # fmt: skip


def render() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *(_render_kind(kind) for kind in KINDS)])


def _render_kind(kind: Kind) -> str:
    schema = build_schema(kind.model)
    lines = [f"## {kind.model.__name__}", "", f"{schema.get('description', '')} Short name: `{kind.short_name}`.", ""]
    for part in ("spec", "status"):
        lines += [f"### {kind.model.__name__} {part}", "", "| field | type | meaning |", "|---|---|---|"]
        lines += [_render_row(path, found) for path, found in _walk(schema["properties"][part], "")]
        lines += [""]
    rules = list(dict.fromkeys(rule["message"] for rule in _rules(schema) if not _is_form(rule)))
    if rules:
        lines += ["Rules that the API server checks:", "", *(f"- {message}" for message in rules), ""]
    return "\n".join(lines)


def _walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    for key, found in (schema.get("properties") or {}).items():
        here = f"{path}.{key}" if path else key
        yield here, found
        inner = found.get("items") if found.get("type") == "array" else found
        yield from _walk(inner or {}, here + ("[]" if found.get("type") == "array" else ""))


def _rules(schema: Schema) -> Iterator[dict[str, Any]]:
    yield from schema.get("x-kubernetes-validations") or []
    for found in (schema.get("properties") or {}).values():
        yield from _rules(found)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _rules(schema[key])


def _is_form(rule: dict[str, Any]) -> bool:
    """Whether a rule says what a single text looks like, as its row does then."""
    return str(rule["rule"]).startswith((MATCHES, WHOLE_NUMBER))


def _render_row(path: str, schema: Schema) -> str:
    kind = "whole number or string" if INT_OR_STRING in schema else schema.get("type", "any")
    if kind == "array":
        kind = f"list of {schema['items'].get('type', 'any')}"
    parts = [schema.get("description", "")]
    if "enum" in schema:
        parts.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    parts += [text.format(schema[key]) + "." for key, text in _BOUNDS.items() if key in schema]
    forms = (rule["message"] for rule in schema.get("x-kubernetes-validations") or [] if _is_form(rule))
    parts += [f"{form[0].upper()}{form[1:]}." for form in forms]
    if "default" in schema and schema["default"] not in ({}, []):
        parts.append(f"Default `{schema['default']}`.")
    return f"| `{path}` | {kind} | {' '.join(filter(None, parts)).replace('|', chr(92) + '|')} |"


def main() -> int:
    """Write the page, or say that it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the page differs")
    return write_or_check({PATH: render()}, check=parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
