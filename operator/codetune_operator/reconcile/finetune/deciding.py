"""FineTune: from what was observed to what to do now. Pure: no client, no clock, no environment.

Read `_decide` top to bottom: it is the life of a run. What the run says about itself (progress, checkpoints,
evaluation) is added by `status`; here it is decided which Job there should be, and which phase that means.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime

from codetune_api.common import Failure
from codetune_api.finetune import DatasetStatus, FineTune, FineTunePhase, ResumedFrom
from codetune_api.metadata import FINALIZER, LABEL_KUEUE_QUEUE
from codetune_api.project import Project

from codetune_operator.reconcile.datasets import is_current
from codetune_operator.reconcile.deletion import reconcile_deletion
from codetune_operator.reconcile.durations import seconds_until
from codetune_operator.reconcile.failures import classify, explain_no_pod
from codetune_operator.reconcile.finetune.merging import reconcile_merge
from codetune_operator.reconcile.finetune.resuming import find_start
from codetune_operator.reconcile.finetune.status import Decision, build_events, build_status
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import ChildRef, Follow, Obj, Plan
from codetune_operator.reconcile.unbound import explain_unbound
from codetune_operator.reconcile.workloads import (
    JobState,
    container_state,
    count_memory_deaths,
    current_pods,
    has_started,
    index_of,
    is_unscheduled,
    job_of,
    living_pods,
    pods_of,
    read_job,
    say_suspended,
)
from codetune_operator.resources.claims import build_missing_claim
from codetune_operator.resources.finetune.training import (
    CONTAINER,
    PEER_LOST_EXIT,
    build_training,
    pin_dataset,
    run_nonce,
    switch_training,
    training_job_name,
    training_job_prefixes,
)
from codetune_operator.resources.models import FETCH_CONTAINER, ModelSource, locate_model
from codetune_operator.settings import Settings

RESULT_SECONDS = 120
"""How long the log of a finished Job may take to appear before its result counts as lost. A log that is there is
read to its end first, however long ago that was: the operator may have been down."""
_LOADING_STAGES = frozenset({"", "Meeting", "Fetching", "LoadingModel", "Tokenizing"})


@dataclass(frozen=True)
class _Source:
    """What a run is made of."""

    dataset: DatasetStatus
    start: ResumedFrom | None
    model: ModelSource
    memory_deaths: int = 0
    """Attempts of its Job that were killed for their memory."""

    def build(self, finetune: FineTune, settings: Settings) -> tuple[Obj, ...]:
        """Its configuration and its Job, which is the last."""
        return build_training(finetune, self.dataset, self.model, settings, self.start, self.memory_deaths)


def reconcile(view: FineTuneView, settings: Settings, now: datetime) -> Plan:
    """What to do about a FineTune now."""
    finetune = view.finetune
    if finetune.metadata.deletion_timestamp:
        return reconcile_deletion(view, settings, now)
    decision = _decide(view, settings, now)
    merge = reconcile_merge(view, settings)
    status = build_status(view, decision, now).model_copy(update={"merged": merge.status})
    return Plan(
        status=status,
        apply=(*decision.apply, *merge.apply),
        delete=(*decision.delete, *merge.delete),
        follow=_follow(view, decision),
        events=build_events(finetune.status, status),
        finalizer="Keep" if FINALIZER in finetune.metadata.finalizers else "Add",
        requeue_after=decision.requeue_after,
    )


def _decide(view: FineTuneView, settings: Settings, now: datetime) -> Decision:
    finetune, status = view.finetune, view.finetune.status
    if status.phase == "Succeeded":
        return _rest(view, "Succeeded", now)
    model = locate_model(finetune.spec.base_model, settings)
    if isinstance(model, Failure):
        return Decision("Failed", model.reason, model.message, failure=model)
    start = find_start(finetune, view.start)
    if isinstance(start, Decision):
        return start
    dataset = status.dataset or _find_dataset(view, settings)
    if isinstance(dataset, Decision):
        return dataset
    source = _Source(dataset, start, model)
    return replace(_decide_run(view, source, settings, now), dataset=dataset, start=start)


def _decide_run(view: FineTuneView, source: _Source, settings: Settings, now: datetime) -> Decision:
    """With everything there that the run is made of."""
    status = view.finetune.status
    name = training_job_name(view.finetune, source.dataset)
    if status.phase == "Failed" and status.job_name == name:
        return _rest(view, "Failed", now)
    waiting = _leave_former_runs(view, name)
    if waiting is not None:
        return replace(waiting, job_name=name)
    job = next((job for job in view.jobs if job["metadata"]["name"] == name), None)
    if job is not None and job["metadata"].get("deletionTimestamp"):
        going = Decision("Starting", "ReplacingJob", f"Job {name} is being removed; a new one follows.")
        return replace(going, job_name=name)
    if job is None:
        return replace(_begin(view, source, settings), job_name=name)
    source = replace(source, memory_deaths=count_memory_deaths(pods_of(name, view.pods), CONTAINER))
    decision = _watch(view, job, source, settings, now)
    if source.memory_deaths and decision.phase == "Starting" and not decision.apply:
        # The next pod learns of it by its configuration: whoever was killed has left no word.
        decision = replace(decision, apply=source.build(view.finetune, settings)[:-1])
    restarts = _count_restarts(read_job(job), pods_of(name, view.pods), view.finetune.spec.resources.nodes)
    return replace(decision, job_name=name, job=read_job(job), restarts=restarts)


def _count_restarts(state: JobState, pods: list[Obj], nodes: int) -> int:
    """Attempts of this Job that failed and were followed by another; on several nodes there were at least so many."""
    # A pod that a deadline ends counts as failed while it still shuts down, and none follows it.
    going_on = any(not pod["metadata"].get("deletionTimestamp") for pod in living_pods(pods))
    followed = state.finished == "Complete" or going_on
    failed = math.ceil(state.failed_pods / nodes)
    return failed if followed else max(0, failed - 1)


def _rest(view: FineTuneView, phase: FineTunePhase, now: datetime) -> Decision:
    """A run that is over: only its Job is still to be removed, when its time has come."""
    status, ttl = view.finetune.status, view.finetune.spec.ttl_seconds_after_finished
    failure = status.failure
    kept = Decision(
        phase,
        failure.reason if failure else "Succeeded",
        failure.message if failure else _previous_message(view),
        failure=failure,
        dataset=status.dataset,
        job_name=status.job_name,
    )
    jobs = [job for job in view.jobs if job["metadata"]["name"] == status.job_name]
    if not jobs:
        return kept
    kept = replace(kept, job=read_job(jobs[0]))
    if ttl is None or status.finished_at is None:
        return kept
    left = seconds_until(status.finished_at, ttl, now)
    return replace(kept, requeue_after=left) if left > 0 else replace(kept, delete=_remove(jobs[0]))


def _previous_message(view: FineTuneView) -> str:
    return next((entry.message for entry in view.finetune.status.conditions if entry.type == "Ready"), "")


def _find_dataset(view: FineTuneView, settings: Settings) -> DatasetStatus | Decision:
    name, project = view.finetune.spec.project_ref.name, view.project
    if project is None or project.metadata.deletion_timestamp:
        why = "does not exist in this namespace: create it" if project is None else "is being deleted: make it anew"
        return Decision("WaitingForData", "ProjectMissing", f"Project {name!r} {why}, and the run starts by itself.")
    if message := _why_not_ready(project):
        return Decision("WaitingForData", "ProjectNotReady", message)
    if project.status.revision is None:
        message = f"Project {name!r} has no data yet: set its spec.suspend to false so that it is scanned."
        return Decision("WaitingForData", "ProjectNotReady", message)
    return pin_dataset(view.finetune, project.status.revision, settings.store.uri)


def _why_not_ready(project: Project) -> str:
    name, status = project.metadata.name, project.status
    if status.phase == "Failed" and is_current(project):
        # A rescan that failed takes nothing away: this is the data of the very sources and rules that spec has.
        return ""
    if status.phase == "Failed":
        told = f": {status.failure.message} {status.failure.hint}".rstrip() if status.failure else ""
        return f"Project {name!r} failed{told}"
    if status.phase in {"Ready", "Suspended"} and status.observed_generation == project.metadata.generation:
        return ""
    return f"Project {name!r} is {status.phase or 'Pending'}; the run starts when it is Ready."


def _leave_former_runs(view: FineTuneView, name: str) -> Decision | None:
    """An edited run goes on in another Job, but never two at once on the same checkpoints."""
    prefix = training_job_prefixes(view.finetune)
    jobs = {job["metadata"]["name"]: job for job in view.jobs if job["metadata"]["name"].startswith(prefix)}
    former = [job for job_name, job in jobs.items() if job_name != name]
    kept = {name} & jobs.keys()
    going = [pod for pod in living_pods(view.pods) if job_of(pod).startswith(prefix) and job_of(pod) not in kept]
    if not former and not going:
        return None
    delete = tuple(ref for job in former if not job["metadata"].get("deletionTimestamp") for ref in _remove(job))
    message = "The former Job of this run writes its checkpoint and stops; then the run goes on."
    return Decision("Starting", "ReplacingJob", message, delete=delete)


def _begin(view: FineTuneView, source: _Source, settings: Settings) -> Decision:
    spec = view.finetune.spec
    if spec.suspend:
        return Decision("Suspended", "Suspended", "Set spec.suspend to false to let the run go on.")
    claim = build_missing_claim(view.claim, view.finetune.metadata.namespace, settings)
    children = (*claim, *source.build(view.finetune, settings))
    if spec.scheduling.queue_name:
        return Decision("Queued", "QueuedByKueue", _say_queue(spec.scheduling.queue_name), apply=children)
    return Decision("Starting", "JobCreated", "The training Job is being created.", apply=children)


def _watch(view: FineTuneView, job: Obj, source: _Source, settings: Settings, now: datetime) -> Decision:
    """What a Job that exists means."""
    spec, state = view.finetune.spec, read_job(job)
    pods = pods_of(job["metadata"]["name"], view.pods)
    if state.finished == "Complete":
        return _finish(view, state, pods, now)
    if state.finished == "Failed":
        return _fail(view, job, pods)
    if spec.suspend:
        return _suspend(view, job, pods, source, settings)
    if state.suspended and (queue := _queue_of(view, job)):
        return Decision("Queued", "QueuedByKueue", _say_queue(queue))
    if state.suspended:
        return _let_go_on(view, job, source, settings)
    current, nodes = current_pods(pods), spec.resources.nodes
    if len(current) < nodes:
        return _await_pods(view, job, pods, now)
    return _watch_pods(view, current, state, now)


def _let_go_on(view: FineTuneView, job: Obj, source: _Source, settings: Settings) -> Decision:
    """Only what is ours is lifted: whoever else suspends a Job would do so again and again."""
    finetune, status = view.finetune, view.finetune.status
    # A suspension whose status could not be written, because spec was edited again, is ours too.
    if status.phase != "Suspended" and status.observed_generation == finetune.metadata.generation:
        return Decision("Queued", "JobSuspended", say_suspended(job))
    *others, built = source.build(finetune, settings)
    resumed = (*others, switch_training(built, job, suspend=False))
    return Decision("Starting", "Resuming", "The run goes on from its last checkpoint.", apply=resumed)


def _queue_of(view: FineTuneView, job: Obj) -> str:
    """Kueue's queue that a Job is in: the one that spec names, or Kueue's own default for the namespace."""
    labels: dict[str, str] = job["metadata"].get("labels") or {}
    return view.finetune.spec.scheduling.queue_name or labels.get(LABEL_KUEUE_QUEUE, "")


def _await_pods(view: FineTuneView, job: Obj, pods: list[Obj], now: datetime) -> Decision:
    current, nodes = current_pods(pods), view.finetune.spec.resources.nodes
    have = f"{len(current)} of {nodes} pods" if current else "no pod yet"
    waiting = Decision("Starting", "NoPod", f"The training Job has {have}.")
    if len(living_pods(pods)) >= nodes or view.report.stage:
        return waiting
    failure, left = explain_no_pod(job, now)
    if failure is None:
        return replace(waiting, requeue_after=left)
    return replace(waiting, message=failure.message, failure=failure)


def _say_queue(name: str) -> str:
    return f"The run waits in the queue {name!r} until Kueue lets it in."


def _finish(view: FineTuneView, state: JobState, pods: list[Obj], now: datetime) -> Decision:
    result = view.report.result
    if result is not None and result.train is not None:
        evaluation = result.train.evaluation
        message = (
            evaluation.message if evaluation else "The run is complete; its project holds no file out to judge it by."
        )
        return Decision("Succeeded", "Succeeded", message)
    left = seconds_until(state.finished_at, RESULT_SECONDS, now) if state.finished_at else RESULT_SECONDS
    logs = {(pod["metadata"]["name"], CONTAINER) for pod in pods if _speaks(pod) and has_started(pod, CONTAINER)}
    if left > 0 or logs - view.read_logs:
        message = "The run is done; its result is being read from the log."
        return Decision("Running", "ReadingResult", message, requeue_after=left if left > 0 else None)
    failure = Failure(
        reason="InternalError",
        message="The training Job is complete, but its log is gone before its result could be read.",
        hint="The checkpoints are kept and can be served with `checkpoint: latest`. For the evaluation, raise "
        "spec.retries by one: the run then resumes at its end, evaluates again and reports.",
    )
    return Decision("Failed", failure.reason, failure.message, failure=failure)


def _fail(view: FineTuneView, job: Obj, pods: list[Obj]) -> Decision:
    # A pod that only lost another one ends after it, but knows nothing of why.
    telling = [pod for pod in pods if _exit_code(pod) != PEER_LOST_EXIT] or pods
    failure = classify(telling[-1:], owner=job, nodes=view.nodes) or Failure(
        reason="InternalError",
        message="The training Job failed, and neither it nor its pod says why.",
        hint=f"See `kubectl describe job {job['metadata']['name']}`; raise spec.retries to try again.",
    )
    return Decision("Failed", failure.reason, failure.message, failure=failure)


def _suspend(view: FineTuneView, job: Obj, pods: list[Obj], source: _Source, settings: Settings) -> Decision:
    message = "Set spec.suspend to false to let the run go on."
    if living_pods(pods):
        message = f"The run writes its checkpoint and stops. {message}"
    if _queue_of(view, job):
        # Kueue lifts the suspension of a Job that it has let in, so a queued run is suspended by taking it away.
        return Decision("Suspended", "Suspended", message, delete=_remove(job))
    if read_job(job).suspended:
        return Decision("Suspended", "Suspended", message)
    *others, built = source.build(view.finetune, settings)
    return Decision("Suspended", "Suspended", message, apply=(*others, switch_training(built, job, suspend=True)))


def _watch_pods(view: FineTuneView, pods: list[Obj], state: JobState, now: datetime) -> Decision:
    """What the pods of one attempt are at: one of each node."""
    unbound, left = explain_unbound(view.claim, pods, now)
    if unbound:
        return Decision("Queued", unbound.reason, unbound.message, failure=unbound)
    failure, spec = classify(pods, nodes=view.nodes), view.finetune.spec
    if waiting := [pod for pod in pods if is_unscheduled(pod)]:
        held = f"Pod {waiting[0]['metadata']['name']} is held back by a scheduling gate."
        message = failure.message if failure else held
        return Decision("Queued", "Unschedulable", message, failure=failure, requeue_after=left)
    if all(_exit_code(pod) == 0 for pod in pods):
        return Decision("Running", "Finishing", "The run is done; its Job ends.")
    if any(_exit_code(pod) or pod.get("status", {}).get("phase") == "Failed" for pod in pods):
        why = f": {failure.reason}: {failure.message}" if failure else ""
        used = f"{state.failed_pods} of {spec.retries * spec.resources.nodes} retries used"
        return Decision("Starting", "Restarting", f"The last attempt ended{why} ({used}).")
    if failure:
        return Decision("Starting", failure.reason, failure.message, failure=failure)
    if starting := [pod for pod in pods if not {"running", "terminated"} & container_state(pod, CONTAINER).keys()]:
        message = f"Pod {starting[0]['metadata']['name']} is starting."
        return Decision("Starting", "PodStarting", message, requeue_after=left)
    if view.report.stage in _LOADING_STAGES:
        return Decision("Starting", "Loading", f"The run prepares itself: {view.report.stage or 'Starting'}.")
    return Decision("Running", "Training", f"The run is at work: {view.report.stage}.")


def _exit_code(pod: Obj) -> int | None:
    """How the trainer ended; None while it has not."""
    code: int | None = container_state(pod, CONTAINER).get("terminated", {}).get("exitCode")
    return code


def _speaks(pod: Obj) -> bool:
    """Whether a pod's log tells of the run: of several, only the first one's does."""
    return index_of(pod) == 0


def _follow(view: FineTuneView, decision: Decision) -> tuple[Follow, ...]:
    """Logs to read: of every attempt, until its result is in status."""
    if decision.job_name is None or view.finetune.status.phase == "Succeeded":
        return ()
    nonce = run_nonce(view.finetune, decision.job_name)
    return tuple(
        Follow(
            pod=pod["metadata"]["name"],
            container=container,
            nonce=nonce,
            finished="terminated" in container_state(pod, container),
        )
        for pod in filter(_speaks, pods_of(decision.job_name, view.pods))
        for container in (FETCH_CONTAINER, CONTAINER)
        if has_started(pod, container)
    )


def _remove(job: Obj) -> tuple[ChildRef, ...]:
    """A Job with its configuration, which goes first: a Job that is gone would not remind us of it."""
    metadata = job["metadata"]
    return (
        ChildRef("v1", "ConfigMap", metadata["name"]),
        ChildRef("batch/v1", "Job", metadata["name"], metadata.get("uid")),
    )
