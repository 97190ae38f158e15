"""When a Project is scanned, scanned again and tried again, and what a suspension does to that."""

from datetime import datetime

import pytest
from codetune_api.project import Project
from codetune_operator.reconcile.project import reconcile
from codetune_operator.reconcile.project.sources import seconds_to_retry
from codetune_operator.resources.project.scan import scan_job_name
from unit.operator.project.situations import (
    NEW,
    NOW,
    PAUSED,
    PRIVATE,
    RUNNING,
    SETTINGS,
    failed,
    make_job,
    make_pod,
    make_project,
    read_status,
    scanned,
    view,
)


def test_a_new_project_gets_finalizer_claim_and_scan() -> None:
    bare = make_project(metadata={"finalizers": []})

    plan = reconcile(view(bare, claim=None), SETTINGS, NOW)

    assert plan.finalizer == "Add"
    assert [obj["kind"] for obj in plan.apply] == ["PersistentVolumeClaim", "ConfigMap", "Job"]


def test_a_claim_that_is_there_is_left_as_it_is() -> None:
    assert [obj["kind"] for obj in reconcile(view(NEW), SETTINGS, NOW).apply] == ["ConfigMap", "Job"]


RESCANS = [
    pytest.param(False, make_project(), id="nothing changed"),
    pytest.param(False, make_project(suspend=False), id="suspend is no reason"),
    pytest.param(True, make_project(files={"maxBytes": 10}), id="rules"),
    pytest.param(True, make_project(holdout={"fraction": 0.2}), id="holdout"),
    pytest.param(True, make_project(sources=[PRIVATE]), id="sources"),
    pytest.param(True, make_project(metadata={"annotations": {"codetune.dev/rescan": "1"}}), id="rescan annotation"),
    pytest.param(False, make_project(metadata={"annotations": {"other": "1"}}), id="another annotation"),
]


@pytest.mark.parametrize(("expected", "project"), RESCANS)
def test_a_project_is_scanned_again_when_what_it_is_made_from_changed(expected: bool, project: Project) -> None:
    plan = reconcile(view(project.model_copy(update={"status": scanned(NEW).status})), SETTINGS, NOW)

    assert bool(plan.apply) is expected


PAUSES = [
    pytest.param(60, "2026-11-23T10:00:00Z", "2026-11-23T10:00:05Z", id="the first retry after a minute"),
    pytest.param(300, "2026-11-23T10:00:00Z", "2026-11-23T10:05:00Z", id="as long as the trouble lasts"),
    pytest.param(3600, "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", id="at most an hour"),
]


@pytest.mark.parametrize(("expected", "since", "ended"), PAUSES)
def test_pauses_between_retries_grow_with_the_trouble(expected: float, since: str, ended: str) -> None:
    assert seconds_to_retry(since, ended, datetime.fromisoformat(ended)) == expected


def test_a_retry_is_a_scan_of_its_own_and_follows_when_the_failed_one_is_removed() -> None:
    job = make_job(condition="Failed", at="2026-11-23T08:00:10Z")

    counted = reconcile(view(failed("SourceUnavailable"), jobs=(job,)), SETTINGS, NOW)
    again = NEW.model_copy(update={"status": read_status(counted)})
    removing = reconcile(view(again, jobs=(job,)), SETTINGS, NOW)
    after = reconcile(view(again), SETTINGS, NOW)

    assert again.status.retries == 1
    assert [(child.kind, child.name) for child in removing.delete] == [
        ("ConfigMap", scan_job_name(NEW)),
        ("Job", scan_job_name(NEW)),
    ]
    assert [obj["metadata"]["name"] for obj in after.apply] == [scan_job_name(again)] * 2
    assert scan_job_name(again) != scan_job_name(NEW)


def test_a_scan_that_had_failed_is_made_anew_after_a_suspension() -> None:
    broken = failed("EmptyDataset", project=PAUSED)
    paused = read_status(reconcile(view(broken), SETTINGS, NOW))

    plan = reconcile(view(NEW.model_copy(update={"status": paused})), SETTINGS, NOW)

    assert [obj["kind"] for obj in plan.apply] == ["ConfigMap", "Job"]


def test_suspending_stops_the_scan_that_runs() -> None:
    plan = reconcile(view(PAUSED, jobs=(make_job(PAUSED),), pods=(make_pod(RUNNING),)), SETTINGS, NOW)

    assert [child.kind for child in plan.delete] == ["ConfigMap", "Job"]
    assert plan.follow == ()
