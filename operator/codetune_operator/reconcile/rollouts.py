"""How far a Deployment is, whether it gets any further, and where its Service answers, read off their JSON. Pure."""

from collections.abc import Iterable

from codetune_api.common import Failure

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.plan import EventSpec, Obj
from codetune_operator.reconcile.workloads import container_entry
from codetune_operator.settings import Settings

_HOPELESS = frozenset(
    {
        "GatedModel",
        "ModelNotFound",
        "RevisionNotFound",
        "UnsupportedModel",
        "PickledWeights",
        "InvalidParameters",
        "AuthenticationFailed",
    }
)
"""Failures that no further attempt mends."""
_CRASHES = frozenset({"CrashLoop", "OutOfMemory", "DiskFull", "InternalError"})
"""Failures that count as lasting once the server has come back a few times in vain."""
_VAIN_RESTARTS = 3


def count(deployment: Obj | None, field: str) -> int:
    """A number of a Deployment's status; 0 when there is none."""
    return int((deployment or {}).get("status", {}).get(field) or 0)


def is_rolled_out(deployment: Obj | None, wanted: int) -> bool:
    """Every replica is of the current template and available, and no other is left."""
    if deployment is None or deployment.get("spec", {}).get("replicas") != wanted:
        return False
    observed = deployment.get("status", {}).get("observedGeneration", 0)
    counts = [count(deployment, field) for field in ("replicas", "updatedReplicas", "availableReplicas")]
    return observed >= deployment["metadata"].get("generation", 0) and counts == [wanted] * 3


def is_stuck(failure: Failure, pods: Iterable[Obj], container: str) -> bool:
    """Whether a failure of these pods is one that waiting does not mend."""
    restarts = max((container_entry(pod, container).get("restartCount", 0) for pod in pods), default=0)
    return failure.reason in _HOPELESS or (failure.reason in _CRASHES and restarts >= _VAIN_RESTARTS)


def lack_keys(secret: str) -> Failure:
    """Pods run and admit nobody.

    Args:
        secret: Name of the Secret that the keys are to be in.
    """
    return Failure(
        reason="NoApiKeys",
        message=f"Nobody is admitted: Secret {secret!r} does not exist or holds no key.",
        hint="Create it with one key a line; the pods take it in within about a minute.",
    )


def say_available(available: int, wanted: int) -> conditions.Wanted:
    """The condition that tells whether anything answers."""
    said = f"{available} of {wanted} replicas answer requests."
    return {"Available": ("True" if available else "False", "Serving" if available else "NoReplica", said)}


def say_stopped() -> conditions.Wanted:
    """As asked for, nothing answers."""
    return conditions.ready("ScaledToZero", "There are to be no replicas: set spec.replicas to serve.")


def build_failure_events(before: Failure | None, after: Failure | None) -> list[EventSpec]:
    """What is told of a failure when it is another one than before."""
    if after is None or (before is not None and before.reason == after.reason):
        return []
    return [EventSpec("Warning", after.reason, f"{after.message} {after.hint}".strip())]


def find_endpoint(name: str, namespace: str, port: int, service: Obj | None, settings: Settings) -> str | None:
    """Base URL of a Service: by its DNS name, whether it is there or not; where there is no DNS, by its address."""
    if settings.endpoint == "DNS":
        return f"http://{name}.{namespace}.svc:{port}"
    address = (service or {}).get("spec", {}).get("clusterIP")
    return f"http://{address}:{port}" if address and address != "None" else None
