"""A Deployment's status: counts, Available, and whether the rollout is getting on. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from codetune_local.controllers.deployment_scaling import available, existing, resolve_bounds
from codetune_local.machinery.objects import Obj, get_condition, name_of, set_condition
from codetune_local.machinery.times import format_time, parse_time

FINISHED = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"


def build_deployment_status(deployment: Obj, new: Obj | None, olds: Sequence[Obj], now: datetime) -> Obj:
    """The whole status from the ReplicaSets' own."""
    sets = [*([new] if new is not None else []), *olds]
    old = deployment.get("status") or {}
    total, replicas = sum(existing(found) for found in sets), deployment["spec"].get("replicas", 1)
    total_available = sum(available(found) for found in sets)
    counts = {
        "replicas": total,
        "updatedReplicas": existing(new) if new is not None else 0,
        "readyReplicas": sum((found.get("status") or {}).get("readyReplicas", 0) for found in sets),
        "availableReplicas": total_available,
        "unavailableReplicas": max(0, max(total, replicas) - total_available),
        "terminatingReplicas": sum((found.get("status") or {}).get("terminatingReplicas", 0) for found in sets),
    }
    status: Obj = {"observedGeneration": deployment["metadata"].get("generation", 1)}
    status |= {key: number for key, number in counts.items() if number}
    if "collisionCount" in old:
        status["collisionCount"] = old["collisionCount"]
    status["conditions"] = _set_available(deployment, old.get("conditions") or [], total_available, now)
    _set_progress(deployment, new, status, old, now)
    return status


def _set_available(deployment: Obj, conditions: list[Obj], total_available: int, now: datetime) -> list[Obj]:
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    replicas = deployment["spec"].get("replicas", 1)
    tolerated = replicas if recreate else resolve_bounds(deployment).unavailable
    floor = replicas - min(tolerated, replicas)
    if total_available >= floor:
        entry = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        entry = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    return _set(conditions, "Available", *entry, now=now)


def _set(conditions: list[Obj], kind: str, status: str, reason: str, message: str, *, now: datetime) -> list[Obj]:
    before = next((found for found in conditions if found["type"] == kind), None)
    if before is not None and (before["status"], before["reason"], before["message"]) == (status, reason, message):
        return conditions
    updated = format_time(now)
    return set_condition(conditions, kind, status, now=now, reason=reason, message=message, lastUpdateTime=updated)


def is_complete(deployment: Obj, status: Obj) -> bool:
    """Whether everything runs the present template and nothing else is left."""
    replicas = deployment["spec"].get("replicas", 1)
    numbers = [status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas")]
    return numbers == [replicas] * 3


def _set_progress(deployment: Obj, new: Obj | None, status: Obj, old: Obj, now: datetime) -> None:
    before = get_condition({"status": {"conditions": old.get("conditions") or []}}, "Progressing")
    if new is None:
        return
    generation_seen = old.get("observedGeneration") == status["observedGeneration"]
    title = f'ReplicaSet "{name_of(new)}"'
    if is_complete(deployment, status):
        entry = ("True", FINISHED, f"{title} has successfully progressed.")
    elif before is not None and before["reason"] == TIMED_OUT and generation_seen and not _moved(old, status):
        return
    elif before is None or (not generation_seen and before["reason"] in (FINISHED, TIMED_OUT)):
        entry = ("True", "NewReplicaSetCreated", f"Created new replica set {name_of(new)!r}".replace("'", '"'))
    elif _moved(old, status):
        entry = ("True", "ReplicaSetUpdated", f"{title} is progressing.")
    elif before["reason"] != FINISHED and _is_late(deployment, before, now):
        entry = ("False", TIMED_OUT, f"{title} has timed out progressing.")
    else:
        return
    status["conditions"] = _set(status["conditions"], "Progressing", *entry, now=now)
    if entry[1] == "ReplicaSetUpdated":  # the deadline counts from the last step
        found = next(found for found in status["conditions"] if found["type"] == "Progressing")
        found["lastUpdateTime"] = format_time(now)


def _moved(old: Obj, status: Obj) -> bool:
    """Whether the rollout got a step further: more new pods, fewer old ones, more of them up."""

    def stale(counts: Obj) -> int:
        return int(counts.get("replicas", 0) - counts.get("updatedReplicas", 0))

    return (
        status.get("updatedReplicas", 0) > old.get("updatedReplicas", 0)
        or stale(status) < stale(old)
        or status.get("readyReplicas", 0) > old.get("readyReplicas", 0)
        or status.get("availableReplicas", 0) > old.get("availableReplicas", 0)
    )


def _is_late(deployment: Obj, progressing: Obj, now: datetime) -> bool:
    limit = deployment["spec"].get("progressDeadlineSeconds", 600)
    since = progressing.get("lastUpdateTime") or progressing["lastTransitionTime"]
    return now - parse_time(since) >= timedelta(seconds=limit)


def seconds_to_deadline(deployment: Obj, status: Obj, now: datetime) -> float | None:
    """When to look again for a rollout that does not get on."""
    progressing = get_condition({"status": status}, "Progressing")
    if progressing is None or progressing["reason"] in (FINISHED, TIMED_OUT):
        return None
    limit = deployment["spec"].get("progressDeadlineSeconds", 600)
    since = parse_time(progressing.get("lastUpdateTime") or progressing["lastTransitionTime"])
    return max(1.0, (since + timedelta(seconds=limit) - now).total_seconds())
