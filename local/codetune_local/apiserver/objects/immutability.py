"""Which fields of built-in kinds can't change once they are set. Pure."""

from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.objects.structural import Cause

Obj = dict[str, Any]
_IMMUTABLE = "field is immutable"
_FIXED: dict[str, tuple[str, ...]] = {
    "jobs.batch": (
        *("completions", "selector", "template", "completionMode", "podFailurePolicy"),
        *("backoffLimitPerIndex", "podReplacementPolicy", "managedBy"),
    ),
    "deployments.apps": ("selector",),
    "replicasets.apps": ("selector",),
    "persistentvolumeclaims": ("accessModes", "storageClassName", "volumeMode"),
}
_POD_MUTABLE = (
    *("nodeName", "activeDeadlineSeconds", "tolerations", "containers", "initContainers"),
    *("terminationGracePeriodSeconds", "schedulingGates"),
)
_POD_TEXT = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
    "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_immutable(info: ResourceInfo, obj: Obj, old: Obj) -> list[Cause]:
    """The fields that changed although they can't."""
    return [
        *_check_spec(info, obj.get("spec") or {}, old.get("spec") or {}),
        *_check_roots(info, obj, old),
    ]


def _check_spec(info: ResourceInfo, spec: Obj, before: Obj) -> list[Cause]:
    causes: list[Cause] = []
    for field in _FIXED.get(info.key, ()):
        if spec.get(field) != before.get(field) and not _may_change(field, spec, before):
            causes.append((f"spec.{field}", "FieldValueInvalid", f'Invalid value: "object": {_IMMUTABLE}'))
    if info.key == "pods" and _pod_identity(spec) != _pod_identity(before):
        causes.append(("spec", "FieldValueForbidden", _POD_TEXT))
    address = before.get("clusterIP")
    if info.key == "services" and address and spec.get("clusterIP") != address and spec.get("type") != "ExternalName":
        shown = spec.get("clusterIP", "")
        causes.append(("spec.clusterIP", "FieldValueInvalid", f'Invalid value: "{shown}": may not change once set'))
    return causes


def _may_change(field: str, spec: Obj, before: Obj) -> bool:
    if field == "storageClassName":
        return field not in before
    if field == "completions":  # an elastic Indexed Job changes both together
        is_elastic = before.get("completionMode") == "Indexed" and spec.get(field) == spec.get("parallelism")
        return is_elastic and before.get(field) == before.get("parallelism")
    return field == "template" and bool(before.get("suspend")) and _same_but_scheduling(spec[field], before[field])


def _check_roots(info: ResourceInfo, obj: Obj, old: Obj) -> list[Cause]:
    causes: list[Cause] = []
    if info.plural in ("rolebindings", "clusterrolebindings") and obj.get("roleRef") != old.get("roleRef"):
        causes.append(("roleRef", "FieldValueInvalid", 'Invalid value: "object": cannot change roleRef'))
    if info.key in ("configmaps", "secrets") and old.get("immutable"):
        why = "Forbidden: field is immutable when `immutable` is set"
        causes += [
            (field, "FieldValueForbidden", why)
            for field in ("data", "binaryData", "immutable")
            if obj.get(field) != old.get(field)
        ]
    if info.key == "secrets" and obj.get("type") != old.get("type"):
        causes.append(("type", "FieldValueInvalid", f'Invalid value: "{obj.get("type")}": {_IMMUTABLE}'))
    return causes


def _same_but_scheduling(template: Obj, before: Obj) -> bool:
    def strip(found: Obj) -> Obj:
        skipped = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
        spec = {key: value for key, value in found["spec"].items() if key not in skipped}
        return {**found, "metadata": {}, "spec": spec}

    return strip(template) == strip(before)


def _pod_identity(spec: Obj) -> Obj:
    fixed = {key: value for key, value in spec.items() if key not in _POD_MUTABLE}
    for kind in ("containers", "initContainers"):
        fixed[kind] = [
            {key: value for key, value in found.items() if key not in ("image", "resources")}
            for found in spec.get(kind) or []
        ]
    return fixed
