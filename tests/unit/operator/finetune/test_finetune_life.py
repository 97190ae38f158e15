"""The life of a FineTune: what was observed in, the phase and the children out. One row, one situation."""

from dataclasses import replace
from typing import Any

import pytest
from codetune_api.contracts import TrainResult
from codetune_api.finetune import FineTune, FineTuneStatus, Progress
from codetune_api.protocol import ResultEvent
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.runs.report import RunReport
from unit.operator.finetune.situations import (
    BEFORE,
    CRASHED,
    DIGEST,
    LATER,
    LONG_AGO,
    MINE,
    NEW,
    NOW,
    PAUSED,
    PINNED,
    QUEUED,
    RUNNING,
    SETTINGS,
    Obj,
    ended,
    job_name,
    make_finetune,
    make_job,
    make_pod,
    make_project,
    view,
)


def make_checkpoint(step: int, loss: float) -> Obj:
    name = f"step-{step:06d}"
    return {
        "name": name,
        "step": step,
        "holdoutLoss": loss,
        "uri": f"pvc://codetune-artifacts/{name}",
        "digest": DIGEST,
    }


PARAMETERS: Obj = {
    "preset": "Smaller", "rank": 16, "alpha": 32, "dropout": 0, "targetModules": ["q_proj"], "trainEmbeddings": False,
    "maxSteps": 60, "epochs": 1, "sequenceLength": 512, "batchTokens": 2048, "learningRate": 1e-3,
    "scheduler": "Linear", "warmupSteps": 1, "weightDecay": 0, "fimRate": 0, "precision": "Float32",
    "gradientCheckpointing": False, "seed": 0, "everySteps": 20,
}  # fmt: skip
RESULT = ResultEvent(
    train=TrainResult.model_validate(
        {
            "steps": 60,
            "tokens": 122880,
            "bestCheckpoint": "step-000040",
            "latestCheckpoint": "step-000060",
            "evaluation": {
                "base": {"loss": 2.0}, "tuned": {"loss": 1.8}, "improvement": 0.1, "message": "10 % better.",
            },
            "parameters": PARAMETERS,
            "checkpoints": [make_checkpoint(40, 1.8), make_checkpoint(60, 1.9)],
            "lossHistory": [{"step": 1, "loss": 2.0}, {"step": 60, "loss": 1.5}],
        }
    )
)  # fmt: skip
AT_WORK = RunReport(
    stage="Training",
    progress=Progress(step=30, total_steps=60, percent=50, loss=1.9, updated_at="2026-11-23T09:59:58Z"),
    remaining=720,
)
UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]


def seen(**status: Any) -> FineTune:
    """A run whose status is about its spec as it is."""
    return make_finetune({**PINNED, "observedGeneration": MINE.metadata.generation, **status})


def in_default_queue(*, suspend: bool) -> Obj:
    """A Job that Kueue has labelled by itself."""
    job = make_job(MINE, suspend=suspend)
    labels = {**job["metadata"]["labels"], "kueue.x-k8s.io/queue-name": "default"}
    return {**job, "metadata": {**job["metadata"], "labels": labels}}


FAILED_PROJECT: Obj = {
    "failure": {"reason": "EmptyDataset", "message": "No file was accepted.", "hint": "Widen files.types."}
}
TOLD = {
    "terminated": {"exitCode": 64, "message": '{"reason":"ModelNotFound","message":"No such model.","hint":"Look."}'}
}

LIFE = [
    pytest.param(
        ("WaitingForData", "ProjectMissing", "'code' does not exist"),
        replace(view(NEW), project=None),
        id="no project",
    ),
    pytest.param(
        ("WaitingForData", "ProjectMissing", "being deleted"),
        view(NEW, make_project(deletionTimestamp=BEFORE)),
        id="project goes away",
    ),
    pytest.param(
        ("WaitingForData", "ProjectNotReady", "is Scanning"), view(NEW, make_project("Scanning")), id="scanning"
    ),
    pytest.param(
        ("WaitingForData", "ProjectNotReady", "is Pending"), view(NEW, make_project(None)), id="project just made"
    ),
    pytest.param(
        ("WaitingForData", "ProjectNotReady", "is Ready; the run starts"),
        view(NEW, make_project(observed=0)),
        id="project edited since its scan",
    ),
    pytest.param(
        ("WaitingForData", "ProjectNotReady", "No file was accepted. Widen files.types."),
        view(NEW, make_project("Failed", status=FAILED_PROJECT)),
        id="project failed",
    ),
    pytest.param(
        ("WaitingForData", "ProjectNotReady", "suspend to false"),
        view(NEW, make_project("Suspended", revision=None)),
        id="project suspended without data",
    ),
    pytest.param(("Starting", "JobCreated", "being created"), view(NEW), id="project ready"),
    pytest.param(
        ("Starting", "JobCreated", "being created"), view(NEW, make_project("Suspended")), id="suspended with data"
    ),
    pytest.param(
        ("Starting", "JobCreated", "being created"), view(MINE, make_project("Scanning")), id="pinned: project is left"
    ),
    pytest.param(("Queued", "QueuedByKueue", "'team'"), view(QUEUED), id="queue: made suspended"),
    pytest.param(
        ("Queued", "QueuedByKueue", "'team'"), view(QUEUED, jobs=(make_job(QUEUED, suspend=True),)), id="in the queue"
    ),
    pytest.param(("Suspended", "Suspended", "to false"), view(PAUSED), id="suspended before its start"),
    pytest.param(
        ("Suspended", "Suspended", "writes its checkpoint"),
        view(PAUSED, jobs=(make_job(PAUSED),), pods=(make_pod(PAUSED, RUNNING),)),
        id="suspended at work",
    ),
    pytest.param(("Starting", "NoPod", "no pod"), view(MINE, jobs=(make_job(MINE),)), id="job without a pod"),
    pytest.param(
        ("Starting", "NoPod", "refuses to create them, for a ResourceQuota"),
        view(MINE, jobs=(make_job(MINE, startTime=LONG_AGO),)),
        id="job that gets no pod",
    ),
    pytest.param(
        ("Starting", "NoPod", "no pod yet"),
        view(MINE, jobs=(make_job(MINE, startTime=LONG_AGO),), report=AT_WORK),
        id="job whose pod is gone",
    ),
    pytest.param(
        ("Starting", "NoPod", "no pod yet"),
        view(MINE, jobs=(make_job(MINE, startTime=LONG_AGO, failed=1),)),
        id="job that waits before its next attempt",
    ),
    pytest.param(
        ("Starting", "PodStarting", "p1"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, phase="Pending"),)),
        id="pod is made",
    ),
    pytest.param(
        ("Queued", "Unschedulable", "64 nvidia.com/gpu"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, phase="Pending", conditions=UNSCHEDULED),)),
        id="no node takes it",
    ),
    pytest.param(
        ("Starting", "ImagePull", "cannot be pulled"),
        view(
            MINE,
            jobs=(make_job(MINE),),
            pods=(make_pod(MINE, {"waiting": {"reason": "ErrImagePull", "message": "x"}}, phase="Pending"),),
        ),
        id="image missing",
    ),
    pytest.param(
        ("Starting", "Loading", "LoadingModel"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, RUNNING),), report=RunReport(stage="LoadingModel")),
        id="loading",
    ),
    pytest.param(
        ("Running", "Training", "Training"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, RUNNING),), report=AT_WORK),
        id="at work",
    ),
    pytest.param(
        ("Starting", "Restarting", "boom (1 of 3 retries used)"),
        view(MINE, jobs=(make_job(MINE, failed=1),), pods=(make_pod(MINE, CRASHED, phase="Failed"),)),
        id="between two attempts",
    ),
    pytest.param(
        ("Starting", "Restarting", "boom (0 of 3 retries used)"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, CRASHED),)),
        id="crashed a moment ago",
    ),
    pytest.param(
        ("Running", "Finishing", "its Job ends"),
        view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, {"terminated": {"exitCode": 0}}, phase="Succeeded"),)),
        id="done, though its Job does not know",
    ),
    pytest.param(
        ("Queued", "JobSuspended", "whoever did so, as Kueue does"),
        view(seen(phase="Starting"), jobs=(make_job(MINE, suspend=True),)),
        id="job that somebody suspends",
    ),
    pytest.param(
        ("Queued", "QueuedByKueue", "'default'"),
        view(seen(phase="Starting"), jobs=(in_default_queue(suspend=True),)),
        id="in the queue that is Kueue's default",
    ),
    pytest.param(
        ("Running", "ReadingResult", "being read"),
        view(MINE, jobs=(make_job(MINE, condition="Complete"),), report=AT_WORK),
        id="done, result still to be read",
    ),
    pytest.param(
        ("Failed", "InternalError", "log is gone"),
        view(MINE, jobs=(make_job(MINE, condition="Complete", at=LONG_AGO),), report=AT_WORK),
        id="done, result lost",
    ),
    pytest.param(
        ("Running", "ReadingResult", "being read"),
        view(
            MINE,
            jobs=(make_job(MINE, condition="Complete", at=LONG_AGO),),
            pods=(make_pod(MINE, {"terminated": {"exitCode": 0}}, phase="Succeeded"),),
            report=AT_WORK,
        ),
        id="done while the operator was down, log still to be read",
    ),
    pytest.param(
        ("Failed", "InternalError", "log is gone"),
        view(
            MINE,
            jobs=(make_job(MINE, condition="Complete", at=LONG_AGO),),
            pods=(make_pod(MINE, {"terminated": {"exitCode": 0}}, phase="Succeeded"),),
            report=AT_WORK,
            read_logs=frozenset({("p1", "train")}),
        ),
        id="done while the operator was down, no result in the log",
    ),
    pytest.param(
        ("Succeeded", "Succeeded", "10 % better."),
        view(MINE, jobs=(make_job(MINE, condition="Complete"),), report=replace(AT_WORK, result=RESULT)),
        id="done, result read",
    ),
    pytest.param(
        ("Failed", "ModelNotFound", "No such model."),
        view(
            MINE,
            jobs=(make_job(MINE, condition="Failed", reason="PodFailurePolicy"),),
            pods=(make_pod(MINE, TOLD, phase="Failed"),),
        ),
        id="failed for good",
    ),
    pytest.param(
        ("Failed", "DeadlineExceeded", "deadline"),
        view(MINE, jobs=(make_job(MINE, condition="Failed", reason="DeadlineExceeded"),)),
        id="deadline",
    ),
    pytest.param(
        ("Failed", "InternalError", "neither it nor its pod"),
        view(MINE, jobs=(make_job(MINE, condition="Failed", reason="Unheard"),)),
        id="failed without a word",
    ),
    pytest.param(
        ("Failed", "UnsupportedModel", "fileRoot"),
        view(make_finetune(PINNED, baseModel="file:///x")),
        id="model out of reach",
    ),
    pytest.param(
        ("Starting", "ReplacingJob", "writes its checkpoint"),
        view(make_finetune(PINNED, retries=9), jobs=(make_job(MINE),)),
        id="edited at work",
    ),
    pytest.param(
        ("Starting", "ReplacingJob", "writes its checkpoint"),
        view(make_finetune(PINNED, retries=9), pods=(make_pod(MINE, RUNNING, deleted=True),)),
        id="edited: the former pod still writes",
    ),
    pytest.param(("Succeeded", "Succeeded", ""), view(ended(MINE, "Succeeded")), id="stays succeeded"),
    pytest.param(
        ("Succeeded", "Succeeded", ""),
        view(ended(make_finetune(retries=9), "Succeeded", jobName="mine-train-0")),
        id="edited after success: nothing is run again",
    ),
    pytest.param(
        ("Failed", "DivergedLoss", "NaN"),
        view(ended(MINE, "Failed", failure={"reason": "DivergedLoss", "message": "NaN"}), make_project(revision=LATER)),
        id="stays failed",
    ),
    pytest.param(
        ("Starting", "JobCreated", "created"),
        view(ended(make_finetune(retries=9), "Failed", jobName=job_name(MINE))),
        id="edited after a failure: runs again",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_phase_and_condition_follow_from_what_is_observed(
    expected: tuple[str, str, str], observed: FineTuneView
) -> None:
    phase, reason, message = expected
    status = status_of(reconcile(observed, SETTINGS, NOW))
    ready = next(entry for entry in status.conditions if entry.type == "Ready")
    assert (status.phase, ready.reason) == (phase, reason)
    assert message in ready.message


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_conditions_read_right_in_kstatus(expected: tuple[str, str, str], observed: FineTuneView) -> None:
    status = status_of(reconcile(observed, SETTINGS, NOW))
    found = {entry.type: entry.status for entry in status.conditions}
    wanted = {
        "Succeeded": {"Ready": "True"},
        "Failed": {"Ready": "False", "Stalled": "True"},
        "Suspended": {"Ready": "False"},
    }.get(expected[0], {"Ready": "False", "Reconciling": "True"})
    assert found == wanted
    assert status.observed_generation == 3
    assert {entry.observed_generation for entry in status.conditions} == {3}


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_whatever_stalls_it_is_its_failure(expected: tuple[str, str, str], observed: FineTuneView) -> None:
    status = status_of(reconcile(observed, SETTINGS, NOW))
    stalled = {entry.reason for entry in status.conditions if entry.type == "Stalled"}
    assert stalled <= {status.failure.reason if status.failure else None}


@pytest.mark.parametrize(("expected", "observed"), LIFE)
def test_doing_it_again_says_nothing_new(expected: tuple[str, str, str], observed: FineTuneView) -> None:
    first = reconcile(observed, SETTINGS, NOW)
    status = status_of(first)
    again = replace(observed, finetune=observed.finetune.model_copy(update={"status": status}))
    second = reconcile(again, SETTINGS, NOW)
    assert status_of(second) == status
    assert second.events == ()
    assert status.failure is None or status.phase in {"Failed", "Queued", "Starting"}


def status_of(plan: Plan) -> FineTuneStatus:
    assert isinstance(plan.status, FineTuneStatus)
    return plan.status
