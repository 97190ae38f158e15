"""Reading Kubernetes objects: identity, ownership, selectors, conditions. Pure, no I/O."""

import copy
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from codetune_local.machinery.times import format_time

Obj = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for what is cluster-wide) and name."""


def key_of(obj: Obj) -> Key:
    """Namespace and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def name_of(obj: Obj) -> str:
    """metadata.name."""
    name: str = obj["metadata"]["name"]
    return name


def namespace_of(obj: Obj) -> str:
    """metadata.namespace; empty for what is cluster-wide."""
    namespace: str = obj["metadata"].get("namespace", "")
    return namespace


def uid_of(obj: Obj) -> str:
    """metadata.uid; empty for an object that was never stored."""
    uid: str = obj["metadata"].get("uid", "")
    return uid


def labels_of(obj: Obj) -> dict[str, str]:
    """metadata.labels, never None."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Obj) -> dict[str, str]:
    """metadata.annotations, never None."""
    return obj["metadata"].get("annotations") or {}


def finalizers_of(obj: Obj) -> list[str]:
    """metadata.finalizers, never None."""
    return obj["metadata"].get("finalizers") or []


def is_being_deleted(obj: Obj) -> bool:
    """Whether deletion was asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def controller_of(obj: Obj) -> Obj | None:
    """The ownerReference with `controller: true`."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            found: Obj = reference
            return found
    return None


def controlled_by(*owners: Obj) -> Callable[[Obj], bool]:
    """Whether the controller of an object is one of `owners` (by uid)."""
    uids = {uid_of(owner) for owner in owners}

    def is_theirs(obj: Obj) -> bool:
        reference = controller_of(obj)
        return reference is not None and reference["uid"] in uids

    return is_theirs


def owner_reference(owner: Obj) -> Obj:
    """The ownerReference that makes `owner` the controller of something."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector matches. None matches nothing; an empty one matches everything."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_meets(requirement, labels) for requirement in selector.get("matchExpressions") or [])


def _meets(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = requirement["key"], requirement["operator"], requirement.get("values") or []
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator == "In":
        return labels.get(key) in values
    return labels.get(key) not in values  # NotIn also matches objects without the label


def get_condition(obj: Obj, kind: str) -> Obj | None:
    """The condition of that type in status."""
    for found in (obj.get("status") or {}).get("conditions") or []:
        if found["type"] == kind:
            condition: Obj = found
            return condition
    return None


def is_condition_true(obj: Obj, kind: str) -> bool:
    """Whether status says that condition is True."""
    condition = get_condition(obj, kind)
    return condition is not None and condition["status"] == "True"


def set_condition(
    conditions: list[Obj], kind: str, status: str, *, now: datetime, reason: str = "", message: str = "", **extra: Any
) -> list[Obj]:
    """A copy of `conditions` with one set; lastTransitionTime moves only when its status changes."""
    entry: Obj = {"type": kind, "status": status, "lastTransitionTime": format_time(now), **extra}
    entry |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    result = []
    for old in copy.deepcopy(conditions):
        if old["type"] != kind:
            result.append(old)
        elif old["status"] == status and old.get("lastTransitionTime"):
            entry["lastTransitionTime"] = old["lastTransitionTime"]
    at = next((index for index, old in enumerate(conditions) if old["type"] == kind), len(result))
    result.insert(at, entry)
    return result
