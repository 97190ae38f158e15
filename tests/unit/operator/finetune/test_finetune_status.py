"""What a FineTune's status tells of its run: progress, time left, checkpoints, adapter, restarts, events."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codetune_api.contracts import TrainResult
from codetune_api.finetune import DatasetStatus, FineTune, FineTuneStatus
from codetune_api.protocol import (
    CheckpointEvent,
    DatasetEvent,
    ParametersEvent,
    ProgressEvent,
    ResultEvent,
    ResumedEvent,
    StageEvent,
)
from codetune_operator.reconcile.durations import format_time, parse_time, say_duration
from codetune_operator.reconcile.finetune.status import Decision, build_events, build_status
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.workloads import JobState
from codetune_operator.runs.report import RunReport, fold
from hypothesis import given
from hypothesis import strategies as st

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
REVISION = "sha256:" + "a" * 64
DIGESTS = {20: "sha256:" + "1" * 64, 40: "sha256:" + "2" * 64, 60: "sha256:" + "3" * 64}
PINNED = DatasetStatus(revision=REVISION, uri="pvc://codetune-artifacts/ns/projects/code/a")
PARAMETERS: Obj = {
    "preset": "Smaller", "rank": 16, "alpha": 32, "dropout": 0, "targetModules": ["q_proj"], "trainEmbeddings": False,
    "maxSteps": 60, "epochs": 1, "sequenceLength": 512, "batchTokens": 2048, "learningRate": 1e-3,
    "scheduler": "Linear", "warmupSteps": 1, "weightDecay": 0, "fimRate": 0, "precision": "Float32",
    "gradientCheckpointing": False, "seed": 0, "everySteps": 20,
}  # fmt: skip
JOB = JobState(finished=None, finished_at=None, started_at="2026-11-23T09:50:00Z", suspended=False, failed_pods=0)
RUNNING = Decision("Running", "Training", "The run is at work: Training.", dataset=PINNED, job_name="j", job=JOB)
DONE = replace(
    RUNNING,
    phase="Succeeded",
    reason="Succeeded",
    job=replace(JOB, finished="Complete", finished_at="2026-11-23T09:59:30Z"),
)


def checkpoint(step: int, holdout: float) -> Obj:
    name = f"step-{step:06d}"
    uri = f"pvc://codetune-artifacts/ns/finetunes/mine/u1/checkpoints/{name}"
    return {"name": name, "step": step, "loss": holdout, "holdoutLoss": holdout, "uri": uri, "digest": DIGESTS[step]}


RESULT = ResultEvent(
    train=TrainResult.model_validate(
        {
            "steps": 60,
            "tokens": 122880,
            "bestCheckpoint": "step-000040",
            "latestCheckpoint": "step-000060",
            "evaluation": {"base": {"loss": 2.0}, "tuned": {"loss": 1.8}, "improvement": 0.1},
            "parameters": PARAMETERS,
            "checkpoints": [checkpoint(40, 1.8), checkpoint(60, 1.9)],
            "lossHistory": [{"step": 1, "loss": 2.0}, {"step": 60, "loss": 1.5}],
        }
    )
)
SAID = [
    StageEvent(stage="LoadingModel"),
    ParametersEvent.model_validate({"parameters": PARAMETERS}),
    DatasetEvent.model_validate({"dataset": {"revision": REVISION, "files": 12, "tokens": 4096, "uri": "elsewhere"}}),
    StageEvent(stage="Training"),
    ProgressEvent(step=20, total=60, loss=2.0, remaining=900),
    CheckpointEvent.model_validate({"checkpoint": checkpoint(20, 1.9)}),
    ProgressEvent(step=40, total=60, loss=1.7, lr=1e-4, tokens=81920, tokens_per_second=500, remaining=725),
    CheckpointEvent.model_validate({"checkpoint": checkpoint(40, 1.8)}),
]


def heard(*events: Any) -> RunReport:
    """The report of a run that said this, one line a second, the last at 09:59:59."""
    report = RunReport()
    for back, event in zip(range(len(events), 0, -1), events, strict=True):
        report = fold(report, event, format_time(NOW - timedelta(seconds=back)))
    return report


def make_finetune(status: FineTuneStatus | None = None) -> FineTune:
    metadata = {"name": "mine", "namespace": "ns", "uid": "u1", "generation": 1}
    spec = {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base"}
    made = FineTune.from_wire(
        {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": metadata, "spec": spec}
    )
    return made.model_copy(update={"status": status}) if status else made


def status_after(decision: Decision, report: RunReport, before: FineTuneStatus | None = None) -> FineTuneStatus:
    return build_status(FineTuneView(finetune=make_finetune(before), report=report), decision, NOW)


def test_a_running_fine_tune_tells_its_progress_and_the_time_left() -> None:
    status = status_after(RUNNING, heard(*SAID))
    assert status.progress is not None
    assert (status.progress.step, status.progress.total_steps, status.progress.percent) == (40, 60, 66.7)
    assert (status.progress.loss, status.progress.holdout_loss, status.progress.stage) == (1.7, 1.8, "Training")
    assert status.remaining == "12m"
    assert status.eta == format_time(NOW + timedelta(seconds=724))
    assert [point.step for point in status.loss_history] == [20, 40]
    assert status.started_at == "2026-11-23T09:50:00Z"
    assert status.finished_at is None


def test_the_pinned_dataset_is_told_with_what_the_run_counted() -> None:
    assert status_after(RUNNING, heard(*SAID)).dataset == PINNED.model_copy(update={"files": 12, "tokens": 4096})


def test_the_commits_that_the_dataset_is_made_of_are_told() -> None:
    sources = [{"name": "backend", "commit": "0123abc"}]
    counted = DatasetEvent.model_validate({"dataset": {"revision": REVISION, "sources": sources}})
    told = status_after(RUNNING, heard(counted)).dataset
    assert told is not None
    assert [source.to_wire() for source in told.sources] == sources


def test_a_dataset_of_another_revision_does_not_count() -> None:
    other = DatasetEvent.model_validate({"dataset": {"revision": "sha256:" + "b" * 64, "files": 99}})
    assert status_after(RUNNING, heard(other)).dataset == PINNED


def test_the_best_checkpoint_so_far_is_the_adapter() -> None:
    status = status_after(RUNNING, heard(*SAID))
    assert (status.best_checkpoint, status.latest_checkpoint) == ("step-000040", "step-000040")
    assert status.adapter is not None
    assert (status.adapter.digest, status.adapter.rank) == (DIGESTS[40], 16)


def test_the_result_settles_everything() -> None:
    status = status_after(DONE, replace(heard(*SAID), result=RESULT))
    assert status.progress is not None
    assert (status.progress.step, status.progress.percent, status.progress.tokens) == (60, 100, 122880)
    assert (status.best_checkpoint, status.latest_checkpoint) == ("step-000040", "step-000060")
    assert [entry.name for entry in status.checkpoints] == ["step-000040", "step-000060"]
    assert status.adapter is not None
    assert status.adapter.digest == DIGESTS[40]
    assert status.evaluation is not None
    assert status.evaluation.improvement == 0.1
    assert (status.remaining, status.eta, status.failure) == (None, None, None)
    assert status.finished_at == "2026-11-23T09:59:30Z"
    assert [point.step for point in status.loss_history] == [1, 60]


def test_a_success_is_not_forgotten_when_the_log_is_gone() -> None:
    done = status_after(DONE, replace(heard(*SAID), result=RESULT))
    assert status_after(replace(DONE, job=None), RunReport(), done) == done


def test_a_failure_keeps_the_checkpoints_and_the_adapter() -> None:
    failed = replace(RUNNING, phase="Failed", reason="CrashLoop", job=replace(JOB, finished="Failed", failed_pods=4))
    status = status_after(failed, heard(*SAID))
    assert [entry.name for entry in status.checkpoints] == ["step-000020", "step-000040"]
    assert status.adapter is not None
    assert (status.remaining, status.finished_at) == (None, format_time(NOW))


def test_a_run_that_begins_again_after_a_failure_has_no_end_yet() -> None:
    failed = status_after(replace(RUNNING, phase="Failed", reason="CrashLoop"), heard(*SAID))
    again = status_after(replace(RUNNING, phase="Starting", reason="JobCreated"), heard(*SAID), failed)
    assert (again.finished_at, again.failure) == (None, None)
    assert again.started_at == failed.started_at


@pytest.mark.parametrize(
    ("expected", "before", "resumed", "restarts"),
    [
        pytest.param(0, None, 0, 0, id="first attempt"),
        pytest.param(2, None, 0, 2, id="began again twice"),
        pytest.param(1, None, 1, 0, id="went on after an eviction"),
        pytest.param(5, 5, 1, 1, id="those of a former Job count"),
    ],
)
def test_restarts_are_never_fewer_than_before(expected: int, before: int | None, resumed: int, restarts: int) -> None:
    report = replace(RunReport(), resumed=resumed)
    status = status_after(replace(RUNNING, restarts=restarts), report, FineTuneStatus(restarts=before))
    assert status.restarts == expected


def test_percent_goes_back_only_when_the_run_went_back() -> None:
    before = heard(*SAID)
    late = fold(before, ProgressEvent(step=10, total=60), "2026-11-23T09:00:00Z")
    assert late == before
    resumed = fold(before, ResumedEvent(checkpoint="step-000020", step=20), format_time(NOW))
    progress = status_after(RUNNING, resumed).progress
    assert progress is not None
    assert progress.step == 20


EVENTS = [
    pytest.param([], {"phase": "Running"}, {"phase": "Running"}, id="nothing new"),
    pytest.param(["Started"], {"phase": "Starting"}, {"phase": "Running"}, id="started"),
    pytest.param(
        ["Resumed"], {"phase": "Suspended", "startedAt": "2026-11-23T09:50:00Z"}, {"phase": "Running"}, id="resumed"
    ),
    pytest.param(["Succeeded"], {"phase": "Running"}, {"phase": "Succeeded"}, id="succeeded"),
    pytest.param(["Suspended"], {"phase": "Running"}, {"phase": "Suspended"}, id="suspended"),
    pytest.param(["WaitingForData"], {}, {"phase": "WaitingForData"}, id="waiting"),
    pytest.param(
        ["Unschedulable"],
        {"phase": "Starting"},
        {"phase": "Queued", "failure": {"reason": "Unschedulable", "message": "64 GPUs"}},
        id="unschedulable",
    ),
    pytest.param(
        [],
        {"phase": "Queued", "failure": {"reason": "Unschedulable", "message": "64 GPUs"}},
        {"phase": "Queued", "failure": {"reason": "Unschedulable", "message": "64 GPUs, now 3 nodes"}},
        id="still unschedulable, in other words",
    ),
    pytest.param(
        ["Restarted"], {"phase": "Running", "restarts": 0}, {"phase": "Running", "restarts": 1}, id="restarted"
    ),
    pytest.param(
        ["DivergedLoss"],
        {"phase": "Running"},
        {"phase": "Failed", "failure": {"reason": "DivergedLoss", "message": "NaN"}},
        id="failed",
    ),
]


@pytest.mark.parametrize(("expected", "before", "after"), EVENTS)
def test_events_tell_changes_that_a_person_wants_to_see(expected: list[str], before: Obj, after: Obj) -> None:
    events = build_events(FineTuneStatus.from_wire(before), FineTuneStatus.from_wire(after))
    assert [event.reason for event in events] == expected
    warnings = {"Unschedulable", "Restarted", "DivergedLoss"}
    assert all((event.type == "Warning") is (event.reason in warnings) for event in events)


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [
        ("0s", -5),
        ("40s", 40),
        ("119s", 119),
        ("2m00s", 120),
        ("9m59s", 599),
        ("12m", 724),
        ("1h00m", 3599),
        ("1h05m", 3900),
        ("2d03h", 183600),
    ],
)
def test_time_left_is_said_for_people(expected: str, seconds: float) -> None:
    assert say_duration(seconds) == expected


@given(st.floats(0, 1e8), st.floats(0, 1e8))
def test_a_longer_time_is_never_said_shorter(first: float, second: float) -> None:
    def read(text: str) -> int:
        units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
        total, digits = 0, ""
        for character in text:
            if character in units:
                total, digits = total + int(digits) * units[character], ""
            else:
                digits += character
        return total

    low, high = sorted((first, second))
    assert read(say_duration(low)) <= read(say_duration(high))


def test_times_of_logs_are_read_to_the_microsecond() -> None:
    assert parse_time("2026-11-23T09:59:59.123456789Z") == NOW - timedelta(microseconds=876544)
