"""Why pods wait for the artifact store's claim: what it asks for, and what to change. Pure.

A claim that nothing can provision says so in Events alone. Where its class binds at once, the scheduler names no claim;
where it binds for the first pod, the scheduler says nothing for up to 10 minutes.
"""

from collections.abc import Iterable
from datetime import datetime

from codetune_api.common import Failure
from codetune_api.metadata import ARTIFACTS_CLAIM

from codetune_operator.reconcile.durations import seconds_until
from codetune_operator.reconcile.plan import Obj
from codetune_operator.reconcile.unschedulable import is_about_storage

CLAIM_SECONDS = 120
"""How long a pod may wait for the claim to be bound before a person is told what may be the matter: making a volume
takes a minute or two on some clouds."""


def explain_unbound(claim: Obj | None, pods: Iterable[Obj], now: datetime) -> tuple[Failure | None, float | None]:
    """Why no pod gets the artifact store.

    Args:
        claim: The namespace's artifact store.
        pods: Pods that may wait for it.
        now: The present.

    Returns:
        What is the matter, once it takes too long; and the seconds until then, while it does not. It may be bound yet.
    """
    pod = next((pod for pod in pods if _waits(pod)), None)
    phase = claim.get("status", {}).get("phase", "Pending") if claim is not None else "Bound"
    if claim is None or pod is None or phase == "Bound":
        return None, None
    created = [obj["metadata"].get("creationTimestamp") for obj in (claim, pod)]
    since = max(filter(None, created), default=None)
    left = seconds_until(since, CLAIM_SECONDS, now) if since is not None else CLAIM_SECONDS
    return (None, left) if left > 0 else (_build_failure(claim, phase, pod), None)


def _waits(pod: Obj) -> bool:
    """Whether a pod mounts the claim and has no node yet, for nothing else that is known."""
    spec = pod.get("spec", {})
    if pod["metadata"].get("deletionTimestamp") or spec.get("nodeName"):
        return False
    volumes = spec.get("volumes", [])
    if not any(volume.get("persistentVolumeClaim", {}).get("claimName") == ARTIFACTS_CLAIM for volume in volumes):
        return False
    conditions = pod.get("status", {}).get("conditions", [])
    refused = [entry for entry in conditions if entry["type"] == "PodScheduled" and entry["status"] == "False"]
    return all(is_about_storage(str(entry.get("message", ""))) for entry in refused)


def _build_failure(claim: Obj, phase: str, pod: Obj) -> Failure:
    spec = claim.get("spec", {})
    modes = [str(mode) for mode in spec.get("accessModes", [])]
    asked = spec.get("resources", {}).get("requests", {}).get("storage", "")
    named = spec.get("storageClassName")
    of_class = f"storage class {named!r}" if named is not None else "no storage class: the cluster has no default one"
    what = ", ".join(filter(None, [*modes, asked, of_class]))
    message = (
        f"Pod {pod['metadata']['name']} waits for the claim {ARTIFACTS_CLAIM!r} ({what}), which is still {phase} after "
        f"{CLAIM_SECONDS} s."
    )
    cures = ["set settings.store.storageClassName to one that can make it"]
    if "ReadWriteMany" in modes:
        cures = [
            "set settings.store.storageClassName to one that offers ReadWriteMany",
            "set settings.store.accessMode to ReadWriteOnce, which is enough where all pods run on one node",
            "make a class that offers ReadWriteMany",
        ]
    hint = (
        f"`kubectl describe pvc {ARTIFACTS_CLAIM}` says why. Where its class does not offer that, "
        f"{', or '.join(cures)}; then delete the claim: it is made anew."
    )
    return Failure(reason="Unschedulable", message=message, hint=hint)
