"""Writes the CustomResourceDefinitions from the models: `python -m codetune_api.crd [--check]`.

pydantic's JSON Schema becomes a structural schema of apiextensions/v1: references inlined, optional fields left out
of `required` instead of being nullable, bounds as OpenAPI 3.0 writes them.
"""

import argparse
import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codetune_api.common import Resource
from codetune_api.finetune import FineTune
from codetune_api.metadata import CATEGORY, GROUP, VERSION
from codetune_api.model import FORM, INT_OR_STRING
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.project import Project
from codetune_api.team import Team

Schema = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "crds"
CHART_FOLDER = REPOSITORY / "charts" / "codetune" / "templates" / "crds"
_NOTICE = "# Written by `python -m codetune_api.crd` from api/codetune_api: change the models, not this file.\n"
MATCHES = "self.matches("
WHOLE_NUMBER = "type(self) == int"
"""How rules begin that say what a single text, or a text or number, looks like."""
_INT_BOUNDS = {"int32": 2**31 - 1}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    type: str
    path: str
    wide: bool = False
    """Only with `-o wide`."""


@dataclass(frozen=True)
class Kind:
    """What a kind's definition says besides its schema."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scalable: bool = False


_READY = Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status')
_AGE = Column("Age", "date", ".metadata.creationTimestamp")

KINDS = (
    Kind(
        Project,
        "projects",
        "cproj",
        (
            Column("Phase", "string", ".status.phase"),
            Column("Files", "integer", ".status.files.accepted"),
            Column("Types", "string", ".status.types"),
            Column("Revision", "string", ".status.shortRevision"),
            _READY,
            Column("Sources", "string", '.status.conditions[?(@.type=="SourcesReady")].reason', wide=True),
            Column("Scanned", "date", ".status.scannedAt", wide=True),
            Column("Schedule", "string", ".spec.schedule", wide=True),
            Column("Next", "string", ".status.nextScanAt", wide=True),
            _AGE,
        ),
    ),
    Kind(
        FineTune,
        "finetunes",
        "ft",
        (
            Column("Phase", "string", ".status.phase"),
            Column("Progress", "number", ".status.progress.percent"),
            Column("Loss", "number", ".status.progress.loss"),
            Column("Holdout", "number", ".status.progress.holdoutLoss", wide=True),
            Column("Remaining", "string", ".status.remaining"),
            Column("Project", "string", ".spec.projectRef.name", wide=True),
            Column("Ready", "string", _READY.path, wide=True),
            _AGE,
        ),
    ),
    Kind(
        ModelDeployment,
        "modeldeployments",
        "mdep",
        (
            Column("Phase", "string", ".status.phase"),
            Column("Base", "string", ".spec.baseModel", wide=True),
            Column("Replicas", "integer", ".spec.replicas"),
            Column("Ready", "integer", ".status.readyReplicas"),
            Column("Models", "string", ".status.models", wide=True),
            _AGE,
        ),
        scalable=True,
    ),
    Kind(
        Team,
        "teams",
        "cteam",
        (
            Column("Phase", "string", ".status.phase"),
            Column("Endpoint", "string", ".status.endpoint"),
            Column("Replicas", "integer", ".spec.replicas", wide=True),
            _READY,
            _AGE,
        ),
    ),
)


def build_definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    name = kind.model.__name__
    subresources: dict[str, Any] = {"status": {}}
    if kind.scalable:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": [_build_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": build_schema(kind.model)},
    }
    names = {
        "kind": name,
        "listKind": f"{name}List",
        "plural": kind.plural,
        "singular": name.lower(),
        "shortNames": [kind.short_name],
        "categories": [CATEGORY],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _build_column(column: Column) -> dict[str, Any]:
    entry = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**entry, "priority": 1} if column.wide else entry


def build_schema(model: type[Resource]) -> Schema:
    """The structural schema of a kind."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    definitions = whole.pop("$defs", {})
    schema = _structural(whole, definitions)
    properties = schema["properties"]
    for key in ("apiVersion", "kind"):
        properties[key] = {"type": "string"}
    properties["metadata"] = {"type": "object"}
    schema["required"] = ["spec"]
    _strip_status_defaults(properties["status"])
    # To kstatus an object without a status is done: this one says that nobody has looked at it yet.
    properties["status"]["default"] = {"observedGeneration": -1}
    return schema


def _structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Inline references, unwrap optionals, translate bounds; drops what OpenAPI 3.0 does not know."""
    schema = _inline(schema, definitions)
    result: Schema = {key: copy.deepcopy(schema[key]) for key in _COPIED if key in schema}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "const" in schema:
        result["enum"] = [schema["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in schema:
            result[bound.lower()] = schema[f"exclusive{bound}"]
            result[f"exclusive{bound}"] = True
    if result.get("default", 0) is None:
        del result["default"]
    if FORM in schema:
        _say_form(result, schema[FORM])
    if INT_OR_STRING in schema:
        del result["type"]  # as apiextensions wants it
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return result
    if "properties" in schema:
        result["properties"] = {key: _structural(found, definitions) for key, found in schema["properties"].items()}
        required = [key for key in schema.get("required", []) if key in result["properties"]]
        if required:
            result["required"] = required
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _structural(schema["additionalProperties"], definitions)
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
    if "default" in result:
        result["default"] = _shorten(result["default"], result)
    _add_format(result)
    return result


def _say_form(schema: Schema, sentence: str) -> None:
    """A rule with a sentence in the place of a pattern, which tells a user little."""
    pattern = schema.pop("pattern").replace("\\", "\\\\")
    whole = f"{WHOLE_NUMBER} ? self >= 0 : " if INT_OR_STRING in schema else ""
    rule = {"rule": f"{whole}{MATCHES}'{pattern}')", "message": sentence}
    schema["x-kubernetes-validations"] = [rule, *schema.get("x-kubernetes-validations", [])]


def _shorten(default: Any, schema: Schema) -> Any:
    """A default without what the defaults of its own fields say anyway, and without nulls: no field here takes one."""
    if not isinstance(default, dict) or "properties" not in schema:
        return default
    fields = schema["properties"]
    told = {key: _shorten(value, fields[key]) for key, value in default.items() if value is not None}
    return {
        key: value for key, value in told.items() if "default" not in fields[key] or value != fields[key]["default"]
    }


_COPIED = (
    "type", "description", "default", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-preserve-unknown-fields",
    INT_OR_STRING,
)  # fmt: skip


def _inline(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Merge `$ref`, a one-element `allOf` and `X | None` into one schema; what stands beside them wins."""
    outer = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf")}
    if "$ref" in schema:
        inner = definitions[schema["$ref"].rsplit("/", 1)[1]]
    elif "anyOf" in schema:
        (inner,) = (option for option in schema["anyOf"] if option.get("type") != "null")
    elif "allOf" in schema:
        (inner,) = schema["allOf"]
    else:
        return outer
    inner = _inline(inner, definitions)
    rules = [*inner.get("x-kubernetes-validations", []), *outer.get("x-kubernetes-validations", [])]
    return {**inner, **outer, **({"x-kubernetes-validations": rules} if rules else {})}


def _add_format(schema: Schema) -> None:
    if schema.get("type") == "integer":
        small = schema.get("maximum", 2**63) <= _INT_BOUNDS["int32"] and schema.get("minimum", -(2**63)) >= -(2**31)
        schema["format"] = "int32" if small else "int64"
    if schema.get("type") == "object" and "maxLength" in schema:
        schema["maxProperties"] = schema.pop("maxLength")  # how pydantic bounds a dict


def _strip_status_defaults(schema: Schema) -> None:
    """Status is written by the operator alone and holds only what it knows: nothing is filled in."""
    schema.pop("default", None)
    for found in (schema.get("properties") or {}).values():
        _strip_status_defaults(found)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _strip_status_defaults(schema[key])


def render(definition: dict[str, Any]) -> str:
    """The YAML file of a definition."""
    return _NOTICE + yaml.safe_dump(definition, sort_keys=False, width=120)


def render_template(definition: dict[str, Any]) -> str:
    """The chart's template of a definition: behind a switch, and never deleted with the release."""
    kept = copy.deepcopy(definition)
    # Argo CD minds Helm's word when an Application is deleted, and only its own when a switch takes the template away.
    kept["metadata"]["annotations"] = {
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "Prune=false",
    }
    # Helm would read braces in descriptions as template actions.
    text = render(kept).replace("{{", '{{ "{{" }}')
    return "{{- if .Values.crds.enabled }}\n" + text + "{{- end }}\n"


def files() -> dict[Path, str]:
    """Every file that this module writes, with its content."""
    found: dict[Path, str] = {}
    for kind in KINDS:
        definition = build_definition(kind)
        found[FOLDER / f"{GROUP}_{kind.plural}.yaml"] = render(definition)
        found[CHART_FOLDER / f"{kind.plural}.yaml"] = render_template(definition)
    return found


def main() -> int:
    """Write the files, or say which differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file differs")
    options = parser.parse_args()
    return write_or_check(files(), check=options.check)


def write_or_check(wanted: dict[Path, str], *, check: bool) -> int:
    """Write generated files, or name those that differ; returns the exit status."""
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(REPOSITORY)} differs from the models: run `make generate`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
