"""The ReplicaSet controller's decisions. Pure."""

import copy
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from codetune_local.controllers.naming import child_name, random_suffix
from codetune_local.machinery.actions import Action, Announcement, Create, Delete, Plan, WriteStatus
from codetune_local.machinery.objects import (
    Obj,
    get_condition,
    is_being_deleted,
    is_condition_true,
    name_of,
    namespace_of,
    owner_reference,
    selects,
    uid_of,
)
from codetune_local.machinery.times import parse_time

REPLICASETS = "replicasets.apps"
PODS = "pods"
MAX_AT_ONCE = 500
"""Pods created or deleted in one round."""


def reconcile_replicaset(
    replicaset: Obj, pods: Sequence[Obj], now: datetime, suffix: Callable[[], str] = random_suffix
) -> Plan:
    """Bring the number of pods to spec.replicas, and status to what there is.

    Args:
        pods: All that the ReplicaSet controls.
    """
    active = [pod for pod in pods if not is_being_deleted(pod) and not _is_over(pod)]
    available, look_again = _available(active, replicaset["spec"].get("minReadySeconds") or 0, now)
    actions: list[Action] = []
    if not is_being_deleted(replicaset):
        actions += _scale(replicaset, active, suffix)
    status = _build_status(replicaset, active, len(available), pods)
    if status != replicaset.get("status"):
        key = namespace_of(replicaset), name_of(replicaset), uid_of(replicaset)
        actions.insert(0, WriteStatus(REPLICASETS, *key, status))
    return Plan(tuple(actions), look_again=look_again)


def _is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _available(pods: Sequence[Obj], min_ready_seconds: int, now: datetime) -> tuple[list[Obj], float | None]:
    """Those ready for long enough, and when the next one will be (seconds)."""
    available, waits = [], []
    for pod in pods:
        ready = get_condition(pod, "Ready")
        if ready is None or ready["status"] != "True":
            continue
        left = (parse_time(ready["lastTransitionTime"]) + timedelta(seconds=min_ready_seconds) - now).total_seconds()
        if not min_ready_seconds or left <= 0:
            available.append(pod)
        else:
            waits.append(left)
    return available, min(waits, default=None)


def _scale(replicaset: Obj, active: Sequence[Obj], suffix: Callable[[], str]) -> list[Action]:
    missing = replicaset["spec"].get("replicas", 1) - len(active)
    if missing > 0:
        announce = Announcement(replicaset, "SuccessfulCreate", "Created pod: {name}")
        count = min(missing, MAX_AT_ONCE)
        return [Create(PODS, build_replica_pod(replicaset, suffix()), announce) for _ in range(count)]
    surplus = sorted(active, key=_least_worth_first)[: min(-missing, MAX_AT_ONCE)]
    announce = Announcement(replicaset, "SuccessfulDelete", "Deleted pod: {name}")
    return [Delete(PODS, namespace_of(pod), name_of(pod), uid_of(pod), announce=announce) for pod in surplus]


def build_replica_pod(replicaset: Obj, suffix: str) -> Obj:
    """A pod of a ReplicaSet."""
    template = copy.deepcopy(replicaset["spec"]["template"])
    given = template.get("metadata") or {}
    metadata = {
        "name": child_name(name_of(replicaset), suffix),
        "namespace": namespace_of(replicaset),
        "labels": given.get("labels") or {},
        "annotations": given.get("annotations") or {},
        "ownerReferences": [owner_reference(replicaset)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _least_worth_first(pod: Obj) -> tuple[bool, bool, bool, str]:
    """Not scheduled, then not running, then not ready, then the youngest."""
    youth = "".join(chr(0x10FFFF - ord(letter)) for letter in pod["metadata"].get("creationTimestamp", ""))
    running = (pod.get("status") or {}).get("phase") == "Running"
    return bool(pod["spec"].get("nodeName")), running, is_condition_true(pod, "Ready"), youth


def _build_status(replicaset: Obj, active: Sequence[Obj], available: int, pods: Sequence[Obj]) -> Obj:
    labels = (replicaset["spec"]["template"].get("metadata") or {}).get("labels") or {}
    whole = {"matchLabels": labels}
    counts = {
        "fullyLabeledReplicas": sum(selects(whole, pod["metadata"].get("labels") or {}) for pod in active),
        "readyReplicas": sum(is_condition_true(pod, "Ready") for pod in active),
        "availableReplicas": available,
        "terminatingReplicas": sum(is_being_deleted(pod) and not _is_over(pod) for pod in pods),
    }
    old = replicaset.get("status") or {}
    status: Obj = {"replicas": len(active), "observedGeneration": replicaset["metadata"].get("generation", 1)}
    status |= {key: number for key, number in counts.items() if number}
    return status | ({"conditions": old["conditions"]} if old.get("conditions") else {})
