"""The children of a FineTune: which Job there is, when another takes its place, and when it goes."""

from dataclasses import replace

import pytest
from codetune_api.finetune import FineTuneStatus, Progress
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.plan import Plan
from codetune_operator.resources.finetune.training import run_nonce
from codetune_operator.runs.report import RunReport
from unit.operator.finetune.situations import (
    BEFORE,
    CRASHED,
    LATER,
    MINE,
    NEW,
    NOW,
    PAUSED,
    PINNED,
    QUEUED,
    REVISION,
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

AT_WORK = RunReport(
    stage="Training", progress=Progress(step=30, total_steps=60, percent=50, updated_at="2026-11-23T09:59:58Z")
)


def status_of(plan: Plan) -> FineTuneStatus:
    assert isinstance(plan.status, FineTuneStatus)
    return plan.status


def kinds(plan: Plan) -> list[str]:
    return [child["kind"] for child in plan.apply]


def test_the_run_is_pinned_to_the_revision_of_its_start() -> None:
    plan = reconcile(view(NEW), SETTINGS, NOW)
    dataset = status_of(plan).dataset
    assert dataset is not None
    assert dataset.revision == REVISION
    assert dataset.uri == f"pvc://codetune-artifacts/ns/projects/code/{'a' * 64}"
    later = replace(
        view(NEW.model_copy(update={"status": status_of(plan)}), make_project(revision=LATER)),
        jobs=(make_job(NEW),),
        pods=(make_pod(NEW, RUNNING),),
        report=AT_WORK,
    )
    after = reconcile(later, SETTINGS, NOW)
    assert status_of(after).dataset == dataset
    assert (after.apply, after.delete) == ((), ())


def test_a_job_that_exists_is_not_written_again() -> None:
    plan = reconcile(view(MINE, jobs=(make_job(MINE),), pods=(make_pod(MINE, RUNNING),)), SETTINGS, NOW)
    assert plan.apply == ()


def test_a_new_run_gets_its_config_before_its_job() -> None:
    assert kinds(reconcile(view(NEW), SETTINGS, NOW)) == ["ConfigMap", "Job"]
    without = replace(view(NEW), claim=None)
    assert kinds(reconcile(without, SETTINGS, NOW)) == ["PersistentVolumeClaim", "ConfigMap", "Job"]


def test_a_finalizer_is_asked_for_once() -> None:
    bare = make_finetune(metadata={"finalizers": []})
    assert reconcile(view(bare), SETTINGS, NOW).finalizer == "Add"
    assert reconcile(view(NEW), SETTINGS, NOW).finalizer == "Keep"


def test_an_edit_removes_the_former_job_with_its_config_and_waits_for_its_pod() -> None:
    edited = make_finetune(PINNED, resources={"gpus": 2})
    first = reconcile(view(edited, jobs=(make_job(MINE),), pods=(make_pod(MINE, RUNNING),)), SETTINGS, NOW)
    assert [(ref.kind, ref.name) for ref in first.delete] == [("ConfigMap", job_name(MINE)), ("Job", job_name(MINE))]
    assert first.apply == ()
    gone = reconcile(view(edited, pods=(make_pod(MINE, CRASHED, phase="Failed"),)), SETTINGS, NOW)
    assert kinds(gone) == ["ConfigMap", "Job"]
    assert gone.apply[1]["metadata"]["name"] == job_name(edited) != job_name(MINE)


def test_suspending_keeps_the_template_of_the_live_job() -> None:
    live = make_job(PAUSED)
    live["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "j1"
    (_, job) = reconcile(view(PAUSED, jobs=(live,), pods=(make_pod(PAUSED, RUNNING),)), SETTINGS, NOW).apply
    assert job["spec"]["suspend"] is True
    assert job["spec"]["template"] == live["spec"]["template"]
    assert "status" not in job


def test_a_suspended_job_is_left_alone_and_let_go_on() -> None:
    held = make_job(MINE, suspend=True)
    assert reconcile(view(PAUSED, jobs=(held,)), SETTINGS, NOW).apply == ()
    plan = reconcile(view(make_finetune({**PINNED, "phase": "Suspended"}), jobs=(held,)), SETTINGS, NOW)
    assert plan.apply[1]["spec"]["suspend"] is False
    (ready,) = (entry for entry in status_of(plan).conditions if entry.type == "Ready")
    assert (status_of(plan).phase, ready.reason) == ("Starting", "Resuming")
    assert "last checkpoint" in ready.message


SUSPENSIONS = [
    pytest.param(True, {"phase": "Suspended", "observedGeneration": 3}, id="ours"),
    pytest.param(True, {"phase": "Running", "observedGeneration": 2}, id="ours, before status told so"),
    pytest.param(False, {"phase": "Starting", "observedGeneration": 3}, id="somebody else's at its start"),
    pytest.param(False, {"phase": "Running", "observedGeneration": 3}, id="somebody else's at work"),
    pytest.param(False, {"phase": "Queued", "observedGeneration": 3}, id="somebody else's, as told before"),
]


@pytest.mark.parametrize(("is_lifted", "status"), SUSPENSIONS)
def test_only_our_own_suspension_is_lifted(is_lifted: bool, status: Obj) -> None:
    seen = make_finetune({**PINNED, **status})
    assert bool(reconcile(view(seen, jobs=(make_job(MINE, suspend=True),)), SETTINGS, NOW).apply) == is_lifted


def test_a_run_in_kueues_default_queue_is_suspended_by_taking_its_job_away() -> None:
    job = make_job(PAUSED)
    job["metadata"]["labels"] = {**job["metadata"]["labels"], "kueue.x-k8s.io/queue-name": "default"}
    plan = reconcile(view(PAUSED, jobs=(job,)), SETTINGS, NOW)
    assert ([ref.kind for ref in plan.delete], plan.apply) == (["ConfigMap", "Job"], ())


def test_suspending_does_not_make_another_job() -> None:
    assert job_name(PAUSED) == job_name(MINE)


def test_a_queued_run_is_suspended_by_taking_its_job_away_and_kueue_is_not_disturbed() -> None:
    paused = make_finetune(PINNED, suspend=True, scheduling={"queueName": "team"})
    plan = reconcile(view(paused, jobs=(make_job(QUEUED),)), SETTINGS, NOW)
    assert [ref.kind for ref in plan.delete] == ["ConfigMap", "Job"]
    assert reconcile(view(QUEUED, jobs=(make_job(QUEUED, suspend=True),)), SETTINGS, NOW).apply == ()
    admitted = reconcile(view(QUEUED, jobs=(make_job(QUEUED),), pods=(make_pod(QUEUED, RUNNING),)), SETTINGS, NOW)
    assert admitted.apply == ()


@pytest.mark.parametrize(
    ("expected", "finished_at", "ttl"),
    [
        pytest.param(([], None), BEFORE, None, id="kept for ever"),
        pytest.param(([], 240.0), BEFORE, 300, id="not yet"),
        pytest.param((["ConfigMap", "Job"], None), BEFORE, 60, id="now"),
        pytest.param((["ConfigMap", "Job"], None), BEFORE, 0, id="at once"),
    ],
)
def test_a_finished_job_is_removed_when_its_time_has_come(
    expected: tuple[list[str], float | None], finished_at: str, ttl: int | None
) -> None:
    finetune = ended(make_finetune(PINNED), "Succeeded", finishedAt=finished_at)
    spec = finetune.spec.model_copy(update={"ttl_seconds_after_finished": ttl})
    finetune = finetune.model_copy(update={"spec": spec})
    plan = reconcile(view(finetune, jobs=(make_job(MINE, condition="Complete"),)), SETTINGS, NOW)
    assert ([ref.kind for ref in plan.delete], plan.requeue_after) == expected


def test_the_log_of_every_attempt_is_read_with_the_nonce_of_its_run() -> None:
    finetune = make_finetune(PINNED)
    first = make_pod(finetune, CRASHED, phase="Failed", name="p1")
    second = make_pod(finetune, RUNNING, name="p2")
    waiting = make_pod(finetune, phase="Pending", name="p3")
    foreign = make_pod(finetune, RUNNING, name="p4", job="another", deleted=True)
    plan = reconcile(view(finetune, jobs=(make_job(finetune),), pods=(first, second, waiting, foreign)), SETTINGS, NOW)
    nonce = run_nonce(finetune, job_name(finetune))
    assert [(each.pod, each.container, each.nonce, each.finished) for each in plan.follow] == [
        ("p1", "train", nonce, True),
        ("p2", "train", nonce, False),
    ]


def test_the_log_of_a_run_that_succeeded_is_not_read_again() -> None:
    done = ended(MINE, "Succeeded")
    plan = reconcile(view(done, jobs=(make_job(MINE),), pods=(make_pod(MINE, RUNNING),)), SETTINGS, NOW)
    assert plan.follow == ()


@pytest.mark.parametrize(
    ("expected", "job", "pods"),
    [
        pytest.param(0, make_job(MINE), [], id="no pod yet"),
        pytest.param(
            0, make_job(MINE, failed=1), [make_pod(MINE, CRASHED, phase="Failed")], id="failed once, no more yet"
        ),
        pytest.param(1, make_job(MINE, failed=1), [make_pod(MINE, RUNNING)], id="the second attempt runs"),
        pytest.param(1, make_job(MINE, condition="Complete", failed=1), [], id="the second attempt made it"),
        pytest.param(
            1,
            make_job(MINE, failed=2),
            [make_pod(MINE, CRASHED, phase="Failed"), make_pod(MINE, RUNNING, name="p2", deleted=True)],
            id="the deadline ends the second attempt",
        ),
        pytest.param(0, make_job(MINE, condition="Failed", failed=1), [], id="the first attempt was the last"),
    ],
)
def test_an_attempt_that_another_one_follows_is_a_restart(expected: int, job: Obj, pods: list[Obj]) -> None:
    plan = reconcile(view(MINE, jobs=(job,), pods=tuple(pods)), SETTINGS, NOW)
    assert status_of(plan).restarts == expected
