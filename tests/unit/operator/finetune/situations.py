"""FineTunes in all situations, with their Projects, Jobs and pods: what tables of tests are made of."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from codetune_api.finetune import FineTune, FineTuneStatus
from codetune_api.project import Project
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.resources.finetune.training import build_training, pin_dataset, training_job_name
from codetune_operator.resources.models import locate_model
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
BEFORE = "2026-11-23T09:59:00Z"
LONG_AGO = "2026-11-23T08:00:00Z"
SETTINGS = Settings()
REVISION, LATER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DIGEST = "sha256:" + "1" * 64


def make_finetune(status: Obj | None = None, metadata: Obj | None = None, **spec: Any) -> FineTune:
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": {
                "name": "mine",
                "namespace": "ns",
                "uid": "u1",
                "generation": 3,
                "finalizers": ["codetune.dev/artifacts"],
                **(metadata or {}),
            },
            "spec": {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base", **spec},
            "status": status or {},
        }
    )


def make_project(
    phase: str | None = "Ready", *, observed: int = 1, revision: str | None = REVISION, **more: Any
) -> Project:
    status = {"phase": phase, "observedGeneration": observed, "revision": revision, **more.pop("status", {})}
    metadata = {"name": "code", "namespace": "ns", "uid": "p1", "generation": 1, **more}
    spec = {"sources": [{"name": "a", "git": {"url": "https://example.org/a.git"}}]}
    return Project.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": metadata, "spec": spec, "status": status}
    )


def make_job(finetune: FineTune, *, condition: str = "", reason: str = "", suspend: bool = False, **status: Any) -> Obj:
    model = locate_model(finetune.spec.base_model, SETTINGS)
    assert not hasattr(model, "reason")
    _, job = build_training(finetune, pin_dataset(finetune, REVISION), model, SETTINGS)
    if condition:
        ended = {"type": condition, "status": "True", "reason": reason, "lastTransitionTime": status.pop("at", BEFORE)}
        status |= {"conditions": [ended]}
    metadata = {**job["metadata"], "uid": "j1"}
    return {**job, "metadata": metadata, "spec": {**job["spec"], "suspend": suspend}, "status": status}


def make_pod(
    finetune: FineTune, state: Obj | None = None, *, phase: str = "Running", name: str = "p1", **more: Any
) -> Obj:
    job = job_name(finetune)
    status: Obj = {"phase": phase, "conditions": more.get("conditions", [])}
    if state is not None:
        status["containerStatuses"] = [{"name": "train", "image": "t", "state": state, "restartCount": 0}]
    metadata = {"name": name, "labels": {"job-name": more.get("job", job)}, "creationTimestamp": BEFORE}
    if more.get("deleted"):
        metadata["deletionTimestamp"] = BEFORE
    spec = {"containers": [{"name": "train", "resources": {"requests": {"nvidia.com/gpu": "64"}}}]}
    return {"metadata": metadata, "spec": spec, "status": status}


def job_name(finetune: FineTune) -> str:
    return training_job_name(finetune, pin_dataset(finetune, REVISION))


RUNNING: Obj = {"running": {"startedAt": BEFORE}}
CRASHED: Obj = {"terminated": {"exitCode": 1, "message": "boom"}}
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
PINNED: Obj = {"dataset": {"revision": REVISION, "uri": "pvc://codetune-artifacts/x"}}
NEW = make_finetune()
MINE = make_finetune(PINNED)
PAUSED = make_finetune(PINNED, suspend=True)
QUEUED = make_finetune(PINNED, scheduling={"queueName": "team"})


def ended(finetune: FineTune, phase: str, **status: Any) -> FineTune:
    """The FineTune after its end, as its own status tells it."""
    told = {**PINNED, "phase": phase, "jobName": job_name(finetune), "finishedAt": BEFORE, **status}
    return finetune.model_copy(update={"status": FineTuneStatus.from_wire(told)})


def view(finetune: FineTune, project: Project | None = None, **more: Any) -> FineTuneView:
    base = FineTuneView(finetune=finetune, project=project or make_project(), claim=CLAIM)
    return replace(base, **more)
