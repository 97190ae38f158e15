"""What a write can't change, and what it demands of the object it changes. Pure; objects are changed in place."""

import copy
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import STALE, conflict, invalid

Obj = dict[str, Any]
SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def check_preconditions(info: ResourceInfo, obj: Obj, old: Obj) -> None:
    """The version and uid that a writer names must be the current ones. Raises: ApiError (409)."""
    version, uid = obj["metadata"].get("resourceVersion"), obj["metadata"].get("uid")
    name = old["metadata"]["name"]
    if version and version != old["metadata"]["resourceVersion"]:
        raise conflict(info.plural, info.group, name, STALE)
    if uid and uid != old["metadata"]["uid"]:
        raise conflict(info.plural, info.group, name, _precondition("UID", uid, old["metadata"]["uid"]))


def check_deletion_preconditions(info: ResourceInfo, old: Obj, uid: str | None, version: str | None) -> None:
    """Those of DeleteOptions. Raises: ApiError (409)."""
    for title, field, wanted in (("UID", "uid", uid), ("ResourceVersion", "resourceVersion", version)):
        if wanted and old["metadata"][field] != wanted:
            why = _precondition(title, wanted, old["metadata"][field])
            raise conflict(info.plural, info.group, old["metadata"]["name"], why)


def _precondition(title: str, wanted: str, found: str) -> str:
    return f"Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}"


def carry_over(info: ResourceInfo, obj: Obj, old: Obj, subresource: str) -> None:
    """What a write can't change stays as it was. Raises: ApiError (422) for a finalizer that comes too late."""
    if subresource == "status":
        _take_status_alone(obj, old)
    elif "status" in info.subresources:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = copy.deepcopy(old["status"])
    for field in (*SERVER_SET, "namespace"):
        obj["metadata"].pop(field, None)
        if field in old["metadata"]:
            obj["metadata"][field] = old["metadata"][field]
    _carry_over_kind(info, obj, old, subresource)
    if old["metadata"].get("deletionTimestamp"):
        _check_finalizers(info, obj, old)


def _take_status_alone(obj: Obj, old: Obj) -> None:
    status, entries = obj.get("status"), obj["metadata"].get("managedFields")
    obj.clear()
    obj.update(copy.deepcopy(old))
    obj.pop("status", None)
    if status is not None:
        obj["status"] = status
    if entries is not None:
        obj["metadata"]["managedFields"] = entries


def _carry_over_kind(info: ResourceInfo, obj: Obj, old: Obj, subresource: str) -> None:
    """What some built-in kinds fill in once and keep when an update leaves it out."""
    if info.kind == "Namespace" and subresource != "finalize" and "spec" in old:
        obj["spec"] = copy.deepcopy(old["spec"])
    if info.key == "secrets" and "type" not in obj:
        obj["type"] = old.get("type", "Opaque")
    if info.key == "services" and (old.get("spec") or {}).get("clusterIP"):
        obj["spec"].setdefault("clusterIP", old["spec"]["clusterIP"])
    if info.key == "jobs.batch":
        obj["spec"].setdefault("selector", old["spec"].get("selector"))


def _check_finalizers(info: ResourceInfo, obj: Obj, old: Obj) -> None:
    before = old["metadata"].get("finalizers") or []
    added = [found for found in obj["metadata"].get("finalizers") or [] if found not in before]
    if added:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        cause = ("metadata.finalizers", "FieldValueForbidden", f"Forbidden: {why} {added}")
        raise invalid(info.kind, info.group, old["metadata"]["name"], [cause])
