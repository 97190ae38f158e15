"""What happens to an object between the wire and the store: pruning, defaults, validation, immutability. Pure."""

import re
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.celrules import _MISSING, check_rules
from codetune_local.apiserver.defaulting import apply_builtin_defaults
from codetune_local.apiserver.errors import ApiError, bad_request, invalid
from codetune_local.apiserver.schemas import resolve, schema_of
from codetune_local.apiserver.structural import Cause, apply_defaults, drop_nulls, prune, validate

Obj = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABELS_ONLY = {"services", "namespaces"}
_FREE_NAMES = {"roles", "rolebindings", "clusterroles", "clusterrolebindings"}


def find_unknown(info: ResourceInfo, obj: Obj) -> list[str]:
    """Remove the fields that the kind doesn't have; returns their paths."""
    schema = schema_of(info)
    return prune(obj, schema, root=True) if schema else []


def fill_in(info: ResourceInfo, obj: Obj) -> None:
    """Drop nulls and apply defaults."""
    schema = schema_of(info)
    drop_nulls({key: value for key, value in obj.items() if key != "metadata"}, schema)
    if info.custom is not None:
        apply_defaults(obj, schema)
    else:
        apply_builtin_defaults(info.key, obj)


def check(info: ResourceInfo, obj: Obj, old: Obj | None) -> None:
    """Validate a whole object. Raises: ApiError (422) with everything that is wrong."""
    schema = resolve(schema_of(info))
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    whole = {**schema, "required": [key for key in schema.get("required") or [] if key not in ("apiVersion", "kind", "metadata")]}
    causes: list[Cause] = _check_metadata(info, obj["metadata"]) + validate(body, whole)
    if info.custom is not None and not causes:
        causes += check_rules(_rule_view(obj), _rule_view(old) if old else _MISSING, schema, is_update=old is not None)
    if info.custom is None and old is not None:
        causes += _check_immutable(info, obj, old)
    if causes:
        raise invalid(info.kind, info.group, obj["metadata"]["name"], causes)


def _rule_view(obj: Obj) -> Obj:
    metadata = {key: obj["metadata"][key] for key in ("name", "generateName") if key in obj["metadata"]}
    return {**obj, "metadata": metadata}


def _check_metadata(info: ResourceInfo, metadata: Obj) -> list[Cause]:
    name = metadata["name"]
    causes: list[Cause] = []
    if info.plural in _FREE_NAMES:
        if "/" in name or "%" in name:
            causes.append(
                ("metadata.name", "FieldValueInvalid", f"Invalid value: \"{name}\": may not contain '/' or '%'")
            )
    elif info.plural in _LABELS_ONLY:
        if not _LABEL.fullmatch(name) or len(name) > 63:
            why = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character"
            causes.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {why}'))
    elif not _SUBDOMAIN.fullmatch(name) or len(name) > 253:
        why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
        causes.append(("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {why}'))
    for key, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            causes.append(
                (
                    "metadata.labels",
                    "FieldValueInvalid",
                    f"Invalid value: \"{value}\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.' ({key})",
                )
            )
    return causes


_IMMUTABLE = "field is immutable"


def _check_immutable(info: ResourceInfo, obj: Obj, old: Obj) -> list[Cause]:
    fixed = {
        "jobs.batch": (
            "completions",
            "selector",
            "template",
            "completionMode",
            "podFailurePolicy",
            "backoffLimitPerIndex",
        ),
        "deployments.apps": ("selector",),
        "replicasets.apps": ("selector",),
        "persistentvolumeclaims": ("accessModes", "storageClassName"),
    }.get(info.key, ())
    causes: list[Cause] = []
    spec, before = obj.get("spec") or {}, old.get("spec") or {}
    for field in fixed:
        if spec.get(field) != before.get(field) and not (field == "storageClassName" and field not in before):
            if field == "template" and before.get("suspend") and _same_but_scheduling(spec[field], before[field]):
                continue
            causes.append((f"spec.{field}", "FieldValueInvalid", f'Invalid value: "object": {_IMMUTABLE}'))
    if info.key == "pods" and _pod_identity(spec) != _pod_identity(before):
        causes.append(
            (
                "spec",
                "FieldValueForbidden",
                "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
            )
        )
    if (
        info.key == "services"
        and before.get("clusterIP")
        and spec.get("clusterIP") != before["clusterIP"]
        and spec.get("type") != "ExternalName"
    ):
        causes.append(
            (
                "spec.clusterIP",
                "FieldValueInvalid",
                f'Invalid value: "{spec.get("clusterIP", "")}": may not change once set',
            )
        )
    if info.plural in ("rolebindings", "clusterrolebindings") and obj.get("roleRef") != old.get("roleRef"):
        causes.append(("roleRef", "FieldValueInvalid", 'Invalid value: "object": cannot change roleRef'))
    if (
        info.key in ("configmaps", "secrets")
        and old.get("immutable")
        and (obj.get("data") != old.get("data") or not obj.get("immutable"))
    ):
        causes.append(("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set"))
    if info.key == "secrets" and obj.get("type") != old.get("type"):
        causes.append(("type", "FieldValueInvalid", f'Invalid value: "{obj.get("type")}": {_IMMUTABLE}'))
    return causes


def _same_but_scheduling(template: Obj, before: Obj) -> bool:
    def strip(found: Obj) -> Obj:
        spec = {
            key: value
            for key, value in found["spec"].items()
            if key not in ("nodeSelector", "tolerations", "affinity", "schedulingGates")
        }
        return {**found, "metadata": {}, "spec": spec}

    return strip(template) == strip(before)


def _pod_identity(spec: Obj) -> Obj:
    fixed = {
        key: value
        for key, value in spec.items()
        if key
        not in (
            "nodeName",
            "activeDeadlineSeconds",
            "tolerations",
            "containers",
            "initContainers",
            "terminationGracePeriodSeconds",
        )
    }
    for kind in ("containers", "initContainers"):
        fixed[kind] = [
            {key: value for key, value in found.items() if key not in ("image", "resources")}
            for found in spec.get(kind) or []
        ]
    return fixed


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


def strict_error(info: ResourceInfo, unknown: list[str]) -> ApiError:
    """The answer to unknown fields under fieldValidation=Strict."""
    listed = ", ".join(f'unknown field "{path}"' for path in unknown)
    return bad_request(
        f'{info.kind} in version "{info.version}" cannot be handled as a {info.kind}: strict decoding error: {listed}'
    )
