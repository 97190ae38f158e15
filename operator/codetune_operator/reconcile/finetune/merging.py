"""A FineTune's merged model: made when the annotation `codetune.dev/merge` asks for it. Pure.

Asked for by annotation, as the store service is: whoever may edit the FineTune may have it, and needs no right to make
Jobs. A request is answered once; what came of it stands in `status.merged` until another one comes.
"""

from dataclasses import dataclass, replace

from codetune_api.artifacts import store_uri
from codetune_api.common import Failure
from codetune_api.finetune import CheckpointStatus, FineTune, MergedStatus, MergePhase
from codetune_api.metadata import ANNOTATION_MERGE

from codetune_operator.reconcile.failures import classify
from codetune_operator.reconcile.finetune.resuming import find_checkpoint, is_checkpoint
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import ChildRef, Obj
from codetune_operator.reconcile.workloads import job_of, living_pods, pods_of, read_job
from codetune_operator.resources.finetune.merging import build_merge, merge_job_name, merge_job_prefix, merged_path
from codetune_operator.resources.models import locate_model
from codetune_operator.settings import Settings

_LONGEST_REQUEST = 256
_ANSWERED = frozenset({"Ready", "Failed"})


@dataclass(frozen=True)
class Merge:
    """What to do about the merged model, and what to say of it."""

    status: MergedStatus | None
    apply: tuple[Obj, ...] = ()
    delete: tuple[ChildRef, ...] = ()


def reconcile_merge(view: FineTuneView, settings: Settings) -> Merge:
    """What to do now."""
    finetune = view.finetune
    before = finetune.status.merged
    request = finetune.metadata.annotations.get(ANNOTATION_MERGE, "")[:_LONGEST_REQUEST]
    if not request or (before is not None and before.request == request and before.phase in _ANSWERED):
        return Merge(before)
    wanted = request.partition("@")[0]
    if not is_checkpoint(wanted):
        return _say(
            request, "Failed", f"The annotation {ANNOTATION_MERGE} must name best, latest or step-N: {wanted!r}."
        )
    found = _find_pinned(finetune, before, request) or find_checkpoint(finetune, wanted)
    if found is None:
        kept = ", ".join(entry.name for entry in finetune.status.checkpoints) or "none"
        return _say(request, "Failed", f"There is no checkpoint {wanted!r}; there are: {kept}.")
    told = _run(view, found, request, settings)
    if told.status is None:
        return told
    uri = store_uri(merged_path(finetune, found.name), settings.store.uri) if told.status.phase == "Ready" else ""
    named = {"checkpoint": found.name, "digest": found.digest, "uri": uri}
    return replace(told, status=told.status.model_copy(update=named))


def _find_pinned(finetune: FineTune, before: MergedStatus | None, request: str) -> CheckpointStatus | None:
    """The checkpoint that this request was begun with: best and latest may have moved since."""
    if before is None or before.request != request:
        return None
    return next((entry for entry in finetune.status.checkpoints if entry.name == before.checkpoint), None)


def _run(view: FineTuneView, checkpoint: CheckpointStatus, request: str, settings: Settings) -> Merge:
    """The Job of this request, and none beside it: they would write to the same place."""
    finetune = view.finetune
    name, prefix = merge_job_name(finetune, request), merge_job_prefix(finetune)
    jobs = {job["metadata"]["name"]: job for job in view.jobs if job["metadata"]["name"].startswith(prefix)}
    former = [job for job_name, job in jobs.items() if job_name != name]
    going = [pod for pod in living_pods(view.pods) if job_of(pod).startswith(prefix) and job_of(pod) != name]
    if former or going:
        delete = tuple(ref for job in former if not job["metadata"].get("deletionTimestamp") for ref in _remove(job))
        return replace(_say(request, "Pending", "An earlier request is being stopped."), delete=delete)
    job = jobs.get(name)
    if job is None:
        model = locate_model(finetune.spec.base_model, settings)
        if isinstance(model, Failure):
            return _say(request, "Failed", f"{model.message} {model.hint}")
        children = build_merge(finetune, checkpoint, request, model, settings)
        return replace(_say(request, "Pending", "The Job that merges is being created."), apply=children)
    return _watch(view, job, checkpoint, request)


def _watch(view: FineTuneView, job: Obj, checkpoint: CheckpointStatus, request: str) -> Merge:
    name, finished = job["metadata"]["name"], read_job(job).finished
    pods = pods_of(name, view.pods)
    if finished == "Complete":
        return _say(request, "Ready", f"{checkpoint.name} is merged into the base model.")
    failure = classify(pods[-1:], owner=job, nodes=view.nodes)
    told = f"{failure.reason}: {failure.message} {failure.hint}".rstrip() if failure else ""
    if finished == "Failed":
        return _say(request, "Failed", told or f"Job {name} failed: see `kubectl describe job {name}`.")
    return _say(request, "Merging", told or f"Job {name} merges {checkpoint.name} into the base model.")


def _say(request: str, phase: MergePhase, message: str) -> Merge:
    return Merge(MergedStatus(request=request, phase=phase, message=message[:4096]))


def _remove(job: Obj) -> tuple[ChildRef, ...]:
    metadata = job["metadata"]
    return (
        ChildRef("v1", "ConfigMap", metadata["name"]),
        ChildRef("batch/v1", "Job", metadata["name"], metadata.get("uid")),
    )
