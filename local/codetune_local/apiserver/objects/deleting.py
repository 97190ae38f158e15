"""The steps of a deletion: the mark, the finalizers, and when an object may go. Pure; objects are changed in place."""

from datetime import datetime, timedelta
from typing import Any

from codetune_local.apiserver.catalog import ResourceInfo

Obj = dict[str, Any]
_OURS = ("orphan", "foregroundDeletion")
"""Finalizers that stand for a propagation policy."""


def mark_deleted(info: ResourceInfo, obj: Obj, *, propagation: str, grace: int | None, now: str) -> None:
    """Begin a deletion, or shorten one that has begun."""
    _set_finalizers(obj["metadata"], propagation)
    metadata, seconds = obj["metadata"], _grace_seconds(info, obj, grace)
    if "deletionTimestamp" not in metadata:
        metadata["deletionTimestamp"] = _later(now, seconds)
        metadata["deletionGracePeriodSeconds"] = seconds
    else:
        metadata["deletionGracePeriodSeconds"] = min(seconds, metadata.get("deletionGracePeriodSeconds", seconds))
    if info.kind == "Namespace":
        obj.setdefault("status", {})["phase"] = "Terminating"


def _later(now: str, seconds: int) -> str:
    """When the object is to be gone, which is what the field tells."""
    return (datetime.fromisoformat(now) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _set_finalizers(metadata: Obj, propagation: str) -> None:
    present = metadata.get("finalizers") or []
    finalizers = [found for found in present if found not in _OURS]
    if propagation == "Foreground":
        finalizers.append("foregroundDeletion")
    elif propagation == "Orphan":
        finalizers.append("orphan")
    elif metadata.get("deletionTimestamp"):
        finalizers = list(present)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _grace_seconds(info: ResourceInfo, obj: Obj, grace: int | None) -> int:
    spec = obj.get("spec") or {}
    if info.key != "pods" or not spec.get("nodeName"):
        return 0
    if grace is not None:
        return grace
    is_finished = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return 0 if is_finished else int(spec.get("terminationGracePeriodSeconds", 30))


def may_go(info: ResourceInfo, obj: Obj) -> bool:
    """Whether nothing holds an object whose deletion has begun."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if info.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")
