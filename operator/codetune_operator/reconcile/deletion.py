"""Deletion of what has artifacts in the store: stop its Jobs, purge, let go. Pure, for Projects and FineTunes alike.

The finalizer can't hang a namespace: it goes when the purge is done, when it failed for good, when somebody else keeps
it suspended, when there is no store, and when nothing can be made any more because the namespace itself goes away: what
lies in a bucket then stays there. What a ModelDeployment serves, or another run has started from, stays until that lets
go of it.
"""

from datetime import datetime
from typing import Protocol

from codetune_api.artifacts import store_uri
from codetune_api.finetune import FineTune, FineTuneStatus
from codetune_api.metadata import FINALIZER
from codetune_api.project import Project, ProjectStatus

from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.datasets import say_holders
from codetune_operator.reconcile.durations import seconds_until
from codetune_operator.reconcile.observed import FineTuneView, ProjectView
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Obj, Plan
from codetune_operator.reconcile.workloads import job_of, living_pods, read_job, say_suspended, suspended_since
from codetune_operator.resources.purge import artifact_folder, build_purge, purge_job_name
from codetune_operator.settings import Settings

IN_USE = "InUse"
PURGING = "Purging"
"""Reasons of Ready while a resource waits for those who use its artifacts, and while these are removed."""
SUSPENDED_SECONDS = 600
"""How long a purge may be suspended by somebody else, as by a queue that has no room for it."""


class _View(Protocol):
    """What deletion looks at in either view."""

    @property
    def jobs(self) -> tuple[Obj, ...]: ...
    @property
    def pods(self) -> tuple[Obj, ...]: ...
    @property
    def claim(self) -> Obj | None: ...
    @property
    def namespace_terminating(self) -> bool: ...


def reconcile_deletion(view: ProjectView | FineTuneView, settings: Settings, now: datetime) -> Plan:
    """What to do about a resource that is being deleted."""
    resource = view.project if isinstance(view, ProjectView) else view.finetune
    if FINALIZER not in resource.metadata.finalizers:
        return Plan()
    has_store = view.claim is not None or settings.store.bucket is not None
    held_by = _find_holders(view) if has_store else ()
    if not held_by and (not has_store or _has_nothing_to_purge(resource, view)):
        return Plan(events=_say_left(resource, view, settings), finalizer="Remove")
    if isinstance(view, ProjectView) and (waits := say_holders(view.uses)):
        return _await_users(view, waits, now)
    name = purge_job_name(resource)
    purge = next((job for job in view.jobs if job["metadata"]["name"] == name), None)
    if purge is not None:
        return _await_purge(resource, purge, settings, now)
    at_work = [pod for pod in living_pods(view.pods) if job_of(pod) != name]
    if view.jobs or at_work:
        # Whoever still writes would bring back what the purge removes.
        return Plan(delete=_jobs(view), status=_say(resource, "StoppingJobs", "Its Jobs are being stopped.", now))
    if held_by:
        return _wait_for_holders(resource, held_by, now)
    message = "Its artifacts are being removed from the store."
    return Plan(apply=build_purge(resource, settings), status=_say(resource, PURGING, message, now))


def _has_nothing_to_purge(resource: Project | FineTune, view: _View) -> bool:
    return _is_retained(resource) or view.namespace_terminating


def _is_retained(resource: Project | FineTune) -> bool:
    return isinstance(resource, FineTune) and resource.spec.deletion_policy == "Retain"


def _say_left(resource: Project | FineTune, view: _View, settings: Settings) -> tuple[EventSpec, ...]:
    """What was to be removed and can't be any more: a claim goes with its namespace, a bucket does not."""
    if settings.store.bucket is None or _is_retained(resource) or not view.namespace_terminating:
        return ()
    folder = store_uri(artifact_folder(resource), settings.store.uri)
    message = f"Its namespace goes away before {folder} could be removed: remove that folder by hand."
    return (EventSpec("Warning", "PurgeFailed", message),)


def _find_holders(view: ProjectView | FineTuneView) -> tuple[str, ...]:
    """Who uses what lies in the store, and how; nobody where that goes away in any case."""
    if isinstance(view, ProjectView) or view.namespace_terminating:
        return ()
    served = ", ".join(f"ModelDeployment {name!r}" for name in view.held_by)
    resumed = ", ".join(f"FineTune {name!r}" for name in view.resumed_by)
    told = (f"is served by {served}" if served else "", f"is where {resumed} started, not over yet" if resumed else "")
    return tuple(text for text in told if text)


def _wait_for_holders(resource: Project | FineTune, held_by: tuple[str, ...], now: datetime) -> Plan:
    message = f"Its adapter {' and '.join(held_by)}: it goes when that is over, no longer refers to it, or is deleted."
    told = conditions.find(resource.status.conditions, "Ready")
    news = told is None or (told.reason, told.message) != (IN_USE, message)
    events = (EventSpec("Normal", IN_USE, message),) if news else ()
    return Plan(status=_say(resource, IN_USE, message, now), events=events)


def _await_users(view: ProjectView, message: str, now: datetime) -> Plan:
    """Runs that still read a dataset of the Project go first. A FineTune that is being deleted itself holds nothing up,
    so neither does one of a namespace that goes away."""
    before = conditions.find(view.project.status.conditions, "Ready")
    news = before is None or before.message != message
    return Plan(
        delete=_jobs(view),
        status=_say(view.project, "DatasetInUse", message, now),
        events=(EventSpec("Warning", "DatasetInUse", message),) if news else (),
    )


def _jobs(view: _View) -> tuple[ChildRef, ...]:
    return tuple(
        ChildRef("batch/v1", "Job", job["metadata"]["name"], job["metadata"].get("uid"))
        for job in view.jobs
        if not job["metadata"].get("deletionTimestamp")
    )


def _await_purge(resource: Project | FineTune, purge: Obj, settings: Settings, now: datetime) -> Plan:
    state, name = read_job(purge), purge["metadata"]["name"]
    config, job = ChildRef("v1", "ConfigMap", name), ChildRef("batch/v1", "Job", name, purge["metadata"].get("uid"))
    if state.finished == "Complete":
        return Plan(delete=(config, job), finalizer="Remove")
    folder = artifact_folder(resource)
    if settings.store.bucket is not None:
        folder = store_uri(folder, settings.store.uri)
    if state.finished == "Failed":
        cure = f"see `kubectl logs job/{name}`, then remove that folder by hand."
        message = f"Job {name} could not remove {folder} from the store: {cure}"
        return Plan(delete=(config,), events=(EventSpec("Warning", "PurgeFailed", message),), finalizer="Remove")
    if not state.suspended:
        return Plan(status=_say(resource, PURGING, "Its artifacts are being removed from the store.", now))
    left = seconds_until(suspended_since(purge), SUSPENDED_SECONDS, now)
    if left > 0:
        return Plan(status=_say(resource, PURGING, say_suspended(purge), now), requeue_after=left)
    message = (
        f"Job {name} did not remove {folder} from the store, because somebody, as Kueue does, kept it suspended for "
        f"{SUSPENDED_SECONDS} s: remove that folder by hand."
    )
    # One that never ran has no log, and would remove things at some later time.
    return Plan(delete=(config, job), events=(EventSpec("Warning", "PurgeFailed", message),), finalizer="Remove")


def _say(resource: Project | FineTune, reason: str, message: str, now: datetime) -> ProjectStatus | FineTuneStatus:
    wanted = conditions.reconciling(reason, message)
    changed = conditions.update(resource.status.conditions, wanted, resource.metadata.generation, now)
    told: dict[str, object] = {"conditions": changed, "observed_generation": resource.metadata.generation}
    if isinstance(resource, Project):
        told |= {"phase": "Deleting", "next_scan_at": None}
    return resource.status.model_copy(update=told)
