"""What Flux, Argo CD and `kubectl wait` make of a Project in every state: kstatus's documented rules are the oracle."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_operator.reconcile.datasets import DatasetUse
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.project import reconcile
from codetune_operator.settings import Settings
from unit.operator.kstatus import kstatus

if TYPE_CHECKING:
    from unit.operator.conftest import Story

Tell = Callable[..., "Story"]
Make = Callable[..., ScanResult]

AWAY = Failure(reason="SourceUnavailable", message="No route.", hint="Wait.")
EMPTY = Failure(reason="EmptyDataset", message="No file.", hint="Select more.")
TWO = [{"name": name, "git": {"url": f"https://git.example.org/{name}.git"}} for name in ("app", "lib")]
WHILE = timedelta(seconds=31)


def scanning(told: "Story", result: Make) -> None:
    told.settle()


def scanned(told: "Story", result: Make) -> None:
    told.run_until(told.now + WHILE)


def failed_for_good(told: "Story", result: Make) -> None:
    told.outcomes = [EMPTY]
    scanned(told, result)


def failed_for_now(told: "Story", result: Make) -> None:
    told.outcomes = [AWAY]
    scanned(told, result)


def failed_in_part(told: "Story", result: Make) -> None:
    told.outcomes = [result(app="", lib="SourceUnavailable")]
    told.edit(sources=TWO)
    scanned(told, result)


def rescanning(told: "Story", result: Make) -> None:
    scanned(told, result)
    told.rescan("1")


def rescan_failed(told: "Story", result: Make) -> None:
    told.outcomes = [result(), EMPTY]
    rescanning(told, result)
    told.run_until(told.now + WHILE)


def edited(told: "Story", result: Make) -> None:
    scanned(told, result)
    told.edit(files={"types": ["Go"]})


def suspended_before_the_first_scan(told: "Story", result: Make) -> None:
    told.edit(suspend=True)


def suspended(told: "Story", result: Make) -> None:
    scanned(told, result)
    told.edit(suspend=True)


def schedule_refused(told: "Story", result: Make) -> None:
    scanned(told, result)
    told.edit(schedule="0 0 31 2 *")


def schedule_mended(told: "Story", result: Make) -> None:
    schedule_refused(told, result)
    told.edit(schedule="0 0 31 1 *")


def healed(told: "Story", result: Make) -> None:
    told.outcomes = [AWAY, result()]
    told.run_until(told.now + timedelta(minutes=10))


STATES = [
    pytest.param("InProgress", scanning, id="first scan"),
    pytest.param("Current", scanned, id="scanned"),
    pytest.param("Failed", failed_for_good, id="failed for good"),
    pytest.param("InProgress", failed_for_now, id="failed for now"),
    pytest.param("Current", failed_in_part, id="a source failed"),
    pytest.param("InProgress", rescanning, id="scanned again"),
    pytest.param("Failed", rescan_failed, id="the rescan failed for good"),
    pytest.param("InProgress", edited, id="rules edited"),
    pytest.param("InProgress", suspended_before_the_first_scan, id="suspended before the first scan"),
    pytest.param("Current", suspended, id="suspended"),
    pytest.param("Failed", schedule_refused, id="schedule that can't be carried out"),
    pytest.param("Current", schedule_mended, id="schedule mended"),
    pytest.param("Current", healed, id="healed by itself"),
]


@pytest.mark.parametrize(("expected", "live"), STATES)
def test_a_project_s_state_is_read_right(
    expected: str, live: Callable[["Story", Make], None], story: Tell, result: Make
) -> None:
    told = story()
    live(told, result)
    obj = {"metadata": {"generation": told.project.metadata.generation}, "status": told.status.to_wire()}

    assert kstatus(obj) == expected
    assert told.status.observed_generation == told.project.metadata.generation
    ready = [entry for entry in told.status.conditions if entry.type == "Ready"]
    assert len(ready) == 1
    assert ready[0].message


@pytest.mark.parametrize("live", [pytest.param(row.values[1], id=row.id) for row in STATES])
def test_stalled_and_reconciling_are_there_only_while_they_are_true_and_never_both(
    live: Callable[["Story", Make], None], story: Tell, result: Make
) -> None:
    told = story()
    live(told, result)

    abnormal = [entry for entry in told.status.conditions if entry.type in {"Stalled", "Reconciling"}]

    assert [entry.status for entry in abnormal] in ([], ["True"])
    assert not (told.condition("Stalled") and told.condition("Ready").startswith("True"))


@pytest.mark.parametrize("live", [pytest.param(row.values[1], id=row.id) for row in STATES])
def test_an_edit_that_nobody_has_seen_yet_is_in_progress(
    live: Callable[["Story", Make], None], story: Tell, result: Make
) -> None:
    told = story()
    live(told, result)
    generation = told.project.metadata.generation + 1

    assert kstatus({"metadata": {"generation": generation}, "status": told.status.to_wire()}) == "InProgress"


def test_a_project_that_is_deleted_says_what_it_waits_for(story: Tell) -> None:
    told = story()
    told.run_until(told.now + WHILE)
    project = told.project
    going = project.metadata.model_copy(update={"deletion_timestamp": "2026-11-23T11:00:00Z", "generation": 2})
    uses = (DatasetUse("run", project.status.revision or "", holds=True),)

    plan = reconcile(
        ProjectView(project.model_copy(update={"metadata": going}), uses=uses, claim={}), Settings(), told.now
    )

    assert plan.status is not None
    wire = {"metadata": {"generation": 2, "deletionTimestamp": "x"}, "status": plan.status.to_wire()}
    assert kstatus(wire) == "Terminating"
    assert (wire["status"]["phase"], wire["status"]["observedGeneration"]) == ("Deleting", 2)
