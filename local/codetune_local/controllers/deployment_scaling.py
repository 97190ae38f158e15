"""How many replicas each ReplicaSet of a Deployment should have now. Pure: the arithmetic of a rollout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codetune_local.machinery.objects import Obj, name_of, uid_of


@dataclass(frozen=True)
class Bounds:
    """How far a rolling update may go (pods)."""

    surge: int
    unavailable: int


def resolve_bounds(deployment: Obj) -> Bounds:
    """maxSurge rounded up and maxUnavailable rounded down; both 0 would stand still, so one pod may be missing."""
    spec = deployment["spec"]
    rolling = (spec.get("strategy") or {}).get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    surge = math.ceil(_share(rolling.get("maxSurge", "25%"), replicas))
    unavailable = math.floor(_share(rolling.get("maxUnavailable", "25%"), replicas))
    return Bounds(surge, unavailable if surge or unavailable else 1)


def _share(value: int | str, whole: int) -> float:
    if isinstance(value, int):
        return value
    return whole * int(value.removesuffix("%")) / 100


def wanted(replicaset: Obj) -> int:
    """spec.replicas."""
    return int(replicaset["spec"].get("replicas", 1))


def available(replicaset: Obj) -> int:
    """status.availableReplicas."""
    return int((replicaset.get("status") or {}).get("availableReplicas", 0))


def existing(replicaset: Obj) -> int:
    """status.replicas."""
    return int((replicaset.get("status") or {}).get("replicas", 0))


def plan_recreate(deployment: Obj, new: Obj, olds: Sequence[Obj], old_pods_left: int) -> dict[str, int]:
    """ReplicaSet uid → replicas: all old ones away first, then the new one."""
    if any(wanted(old) for old in olds):
        return {uid_of(old): 0 for old in olds}
    if old_pods_left:
        return {}
    return {uid_of(new): deployment["spec"].get("replicas", 1)}


def plan_rolling(deployment: Obj, new: Obj, olds: Sequence[Obj]) -> dict[str, int]:
    """ReplicaSet uid → replicas: the next step that keeps within maxSurge and maxUnavailable."""
    replicas = deployment["spec"].get("replicas", 1)
    bounds = resolve_bounds(deployment)
    current = {uid_of(found): wanted(found) for found in (new, *olds)}
    changed = dict(current)
    if current[uid_of(new)] > replicas:
        changed[uid_of(new)] = replicas
    elif current[uid_of(new)] < replicas:
        room = replicas + bounds.surge - sum(current.values())
        changed[uid_of(new)] = min(replicas, current[uid_of(new)] + max(0, room))
    if changed == current:  # as in Kubernetes: grow first, shrink in a round of its own
        _shrink_olds(replicas, bounds, new, olds, changed)
    return {uid: number for uid, number in changed.items() if number != current[uid]}


def _shrink_olds(replicas: int, bounds: Bounds, new: Obj, olds: Sequence[Obj], changed: dict[str, int]) -> None:
    floor = replicas - bounds.unavailable
    unready_new = wanted(new) - available(new)
    budget = sum(changed.values()) - floor - unready_new
    if budget <= 0:
        return
    oldest_first = sorted(olds, key=lambda found: (found["metadata"].get("creationTimestamp", ""), name_of(found)))
    for old in oldest_first:  # what is not available anyway goes first: it costs nothing
        spare = max(0, min(budget, wanted(old) - available(old)))
        changed[uid_of(old)] -= spare
        budget -= spare
    total_available = sum(available(found) for found in (new, *olds))
    spendable = total_available - floor
    for old in oldest_first:
        cut = max(0, min(spendable, changed[uid_of(old)]))
        changed[uid_of(old)] -= cut
        spendable -= cut
