"""The Deployment controller's decisions. Pure: the Deployment and what it has in, a plan out."""

import copy
from collections.abc import Sequence
from datetime import datetime

from codetune_local.controllers.deployment_scaling import (
    existing,
    plan_recreate,
    plan_rolling,
    resolve_bounds,
    wanted,
)
from codetune_local.controllers.deployment_status import build_deployment_status, seconds_to_deadline
from codetune_local.controllers.naming import child_name, hash_template
from codetune_local.machinery.actions import Action, Announcement, Create, Delete, Patch, Plan, WriteStatus
from codetune_local.machinery.objects import (
    Obj,
    annotations_of,
    is_being_deleted,
    name_of,
    namespace_of,
    owner_reference,
    uid_of,
)

DEPLOYMENTS, REPLICASETS = "deployments.apps", "replicasets.apps"
HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED, MAXIMUM = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS = (REVISION, DESIRED, MAXIMUM, "kubectl.kubernetes.io/last-applied-configuration")


def reconcile_deployment(deployment: Obj, replicasets: Sequence[Obj], pods: Sequence[Obj], now: datetime) -> Plan:
    """What to do for a Deployment now.

    Args:
        replicasets: All that it controls.
        pods: All pods of those.
    """
    new = find_new_replicaset(deployment, replicasets)
    olds = [found for found in replicasets if new is None or uid_of(found) != uid_of(new)]
    actions: list[Action] = []
    if not is_being_deleted(deployment):
        actions += _advance(deployment, new, olds, pods)
    status = build_deployment_status(deployment, new, olds, now)
    if status != deployment.get("status"):
        key = namespace_of(deployment), name_of(deployment), uid_of(deployment)
        actions.append(WriteStatus(DEPLOYMENTS, *key, status))
    return Plan(tuple(actions), look_again=seconds_to_deadline(deployment, status, now))


def find_new_replicaset(deployment: Obj, replicasets: Sequence[Obj]) -> Obj | None:
    """The ReplicaSet with the Deployment's present template; the oldest if there are several."""
    matching = [found for found in replicasets if _plain_template(found) == deployment["spec"]["template"]]
    return min(
        matching, key=lambda found: (found["metadata"].get("creationTimestamp", ""), name_of(found)), default=None
    )


def _plain_template(replicaset: Obj) -> Obj:
    template: Obj = copy.deepcopy(replicaset["spec"]["template"])
    (template.get("metadata") or {}).get("labels", {}).pop(HASH_LABEL, None)
    return template


def _advance(deployment: Obj, new: Obj | None, olds: Sequence[Obj], pods: Sequence[Obj]) -> list[Action]:
    if deployment["spec"].get("paused"):
        return _scale_paused(deployment, [*([new] if new else []), *olds])
    if new is None:
        return [_create_new(deployment, olds)]
    revision = _set_revision(deployment, new, olds)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        left = sum(1 for pod in pods if not _is_over(pod) and _belongs(pod, olds))
        changes = plan_recreate(deployment, new, olds, left)
    else:
        changes = plan_rolling(deployment, new, olds)
    scaled = [_scale(deployment, found, changes) for found in (new, *olds)]
    return [*revision, *(action for action in scaled if action), *_clean_up(deployment, olds)]


def _belongs(pod: Obj, replicasets: Sequence[Obj]) -> bool:
    owners = {reference["uid"] for reference in pod["metadata"].get("ownerReferences") or []}
    return bool(owners & {uid_of(found) for found in replicasets})


def _is_over(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _scale_paused(deployment: Obj, replicasets: Sequence[Obj]) -> list[Action]:
    """A paused Deployment only follows spec.replicas, with the ReplicaSet that is in use."""
    active = [found for found in replicasets if wanted(found)]
    if len(active) != 1:
        return []
    action = _scale(deployment, active[0], {uid_of(active[0]): deployment["spec"].get("replicas", 1)})
    return [action] if action else []


def _create_new(deployment: Obj, olds: Sequence[Obj]) -> Action:
    replicas = deployment["spec"].get("replicas", 1)
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        first = 0 if any(wanted(old) or existing(old) for old in olds) else replicas
    else:
        room = replicas + resolve_bounds(deployment).surge - sum(wanted(old) for old in olds)
        first = max(0, min(replicas, room))
    replicaset = build_replicaset(deployment, first, _next_revision(olds))
    text = f"Scaled up replica set {name_of(replicaset)} from 0 to {first}"
    announce = Announcement(deployment, "ScalingReplicaSet", text) if first else None
    return Create(REPLICASETS, replicaset, announce)


def build_replicaset(deployment: Obj, replicas: int, revision: int) -> Obj:
    """The ReplicaSet for the Deployment's present template."""
    template = copy.deepcopy(deployment["spec"]["template"])
    collisions = (deployment.get("status") or {}).get("collisionCount", 0)
    digest = hash_template(deployment["spec"]["template"], collisions)
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = digest
    selector = copy.deepcopy(deployment["spec"]["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = digest
    metadata = {
        "name": child_name(name_of(deployment), digest),
        "namespace": namespace_of(deployment),
        "labels": dict(template["metadata"]["labels"]),
        "annotations": _inherited_annotations(deployment) | {REVISION: str(revision)} | _sizes(deployment),
        "ownerReferences": [owner_reference(deployment)],
    }
    spec = {"replicas": replicas, "selector": selector, "template": template}
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}


def _inherited_annotations(deployment: Obj) -> dict[str, str]:
    return {key: value for key, value in annotations_of(deployment).items() if key not in _OWN_ANNOTATIONS}


def _sizes(deployment: Obj) -> dict[str, str]:
    replicas = deployment["spec"].get("replicas", 1)
    rolling = (deployment["spec"].get("strategy") or {}).get("type") != "Recreate"
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + (resolve_bounds(deployment).surge if rolling else 0))}


def revision_of(obj: Obj) -> int:
    """The revision annotation; 0 when there is none."""
    text = annotations_of(obj).get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def _next_revision(olds: Sequence[Obj]) -> int:
    return max((revision_of(old) for old in olds), default=0) + 1


def _set_revision(deployment: Obj, new: Obj, olds: Sequence[Obj]) -> list[Action]:
    """A template that comes back (a rollback) gets a new revision; the Deployment shows the present one."""
    revision = revision_of(new)
    actions: list[Action] = []
    if revision < _next_revision(olds):
        revision = _next_revision(olds)
        patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
        actions.append(Patch(REPLICASETS, namespace_of(new), name_of(new), patch))
    if revision_of(deployment) != revision:
        patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
        actions.append(Patch(DEPLOYMENTS, namespace_of(deployment), name_of(deployment), patch))
    return actions


def _scale(deployment: Obj, replicaset: Obj, changes: dict[str, int]) -> Action | None:
    before, after = wanted(replicaset), changes.get(uid_of(replicaset), wanted(replicaset))
    if before == after:
        return None
    patch = {"metadata": {"annotations": _sizes(deployment)}, "spec": {"replicas": after}}
    way = "up" if after > before else "down"
    text = f"Scaled {way} replica set {name_of(replicaset)} from {before} to {after}"
    announce = Announcement(deployment, "ScalingReplicaSet", text)
    return Patch(REPLICASETS, namespace_of(replicaset), name_of(replicaset), patch, announce)


def _clean_up(deployment: Obj, olds: Sequence[Obj]) -> list[Action]:
    """Remove the oldest empty ReplicaSets over revisionHistoryLimit."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    empty = [old for old in olds if not wanted(old) and not existing(old) and not is_being_deleted(old)]
    surplus = sorted(empty, key=revision_of)[: max(0, len(empty) - limit)]
    return [Delete(REPLICASETS, namespace_of(old), name_of(old), uid_of(old)) for old in surplus]
