"""Datasets: which stay in the store, who may start on them, and what the deletion of a Project waits for."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_api.finetune import FineTune
from codetune_api.project import Project
from codetune_operator.cluster.kinds import FINETUNE, PROJECT
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.waking import concerned
from codetune_operator.reconcile import finetune
from codetune_operator.reconcile.datasets import DatasetUse, kept_revisions, read_uses, say_holders
from codetune_operator.reconcile.observed import FineTuneView, ProjectView
from codetune_operator.reconcile.project import reconcile
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Story

Tell = Callable[..., "Story"]
Make = Callable[..., ScanResult]
Obj = dict[str, Any]

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
OLD, OTHER = "sha256:" + "0" * 64, "sha256:" + "1" * 64
WHILE = timedelta(minutes=2)


def make_finetune(name: str = "run", phase: str = "Running", project: str = "mine", **more: Any) -> Obj:
    status: Obj = {"phase": phase, **({"dataset": {"revision": more["pins"]}} if "pins" in more else {})}
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": name, "namespace": "ns", "uid": name, **more.get("metadata", {})},
        "spec": {"projectRef": {"name": project}, "baseModel": "file:///m", "resources": {"gpus": 0}},
        "status": status,
    }


USES = [
    pytest.param([("run", OLD, True)], make_finetune(pins=OLD), id="running"),
    pytest.param([("run", OLD, True)], make_finetune(pins=OLD, phase="Suspended"), id="suspended"),
    pytest.param([("run", OLD, True)], make_finetune(pins=OLD, phase="Queued"), id="queued"),
    pytest.param([("run", OLD, False)], make_finetune(pins=OLD, phase="Succeeded"), id="succeeded: pinned, not held"),
    pytest.param([("run", OLD, False)], make_finetune(pins=OLD, phase="Failed"), id="failed: can be resumed"),
    pytest.param(
        [("run", OLD, False)],
        make_finetune(pins=OLD, metadata={"deletionTimestamp": "2026-11-23T09:00:00Z"}),
        id="going away",
    ),
    pytest.param([], make_finetune(phase="WaitingForData"), id="nothing pinned yet"),
    pytest.param([], make_finetune(pins=OLD, project="another"), id="of another project"),
    pytest.param([], {"metadata": {"name": "new"}, "spec": {}}, id="just made"),
]


@pytest.mark.parametrize(("expected", "obj"), USES)
def test_a_finetune_uses_a_dataset(expected: list[tuple[str, str, bool]], obj: Obj) -> None:
    assert [(use.finetune, use.revision, use.holds) for use in read_uses("mine", [obj])] == expected


def test_a_scan_keeps_what_is_current_and_what_any_finetune_was_made_on(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result("a"), result("b")]
    told.run_until(told.now + WHILE)
    told.uses = (DatasetUse("done", OTHER, holds=False), DatasetUse("run", OLD, holds=True))

    told.rescan("1")

    assert told.scans[0].config["keep"] == []
    assert told.scans[1].config["keep"] == sorted([OLD, OTHER, "sha256:" + "a" * 64])
    assert kept_revisions(told.project, told.uses) == told.scans[1].config["keep"]


def test_a_dataset_that_was_pinned_while_a_scan_ran_is_kept_by_that_scan_and_the_next(
    story: Tell, result: Make
) -> None:
    told = story()
    told.outcomes = [result("a"), result("b"), result("c")]
    told.run_until(told.now + WHILE)
    told.rescan("1")

    told.uses = (DatasetUse("late", "sha256:" + "a" * 64, holds=True),)
    told.run_until(told.now + WHILE)
    told.rescan("2")

    assert [("sha256:" + "a" * 64 in scan.config["keep"]) for scan in told.scans] == [False, True, True]


def make_view(told: "Story", obj: Obj) -> FineTuneView:
    return FineTuneView(finetune=FineTune.from_wire(obj), project=told.project, claim={"kind": "x"})


def start(told: "Story", obj: Obj) -> tuple[str | None, str | None]:
    """Phase and pinned revision after a look at a FineTune."""
    plan = finetune.reconcile(make_view(told, obj), Settings(fileRoot="/srv"), NOW)
    assert plan.status is not None
    status = plan.status.to_wire()
    return status.get("phase"), status.get("dataset", {}).get("revision")


def test_a_run_starts_on_the_old_dataset_when_a_rescan_failed(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result(), Failure(reason="RevisionNotFound", message="No branch.", hint="Push it.")]
    told.run_until(told.now + WHILE)
    told.rescan("1")
    told.run_until(told.now + WHILE)
    assert told.status.phase == "Failed"

    assert start(told, make_finetune(phase="WaitingForData")) == ("Starting", told.status.revision)


def test_a_run_does_not_start_on_data_of_former_rules(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result(), Failure(reason="EmptyDataset", message="No file.", hint="Select more.")]
    told.run_until(told.now + WHILE)
    told.edit(files={"exclude": ["secret/"]})
    told.run_until(told.now + WHILE)
    assert told.status.phase == "Failed"

    assert start(told, make_finetune(phase="WaitingForData")) == ("WaitingForData", None)


def test_a_run_goes_on_with_its_own_revision_whatever_the_project_finds(story: Tell, result: Make) -> None:
    told = story()
    told.outcomes = [result("a"), result("b")]
    told.run_until(told.now + WHILE)
    running = FineTune.from_wire(make_finetune(phase="Running", pins=told.status.revision))
    before = finetune.reconcile(
        FineTuneView(finetune=running, project=told.project, claim={}), Settings(fileRoot="/srv"), NOW
    )

    told.rescan("1")
    told.run_until(told.now + WHILE)
    after = finetune.reconcile(
        FineTuneView(finetune=running, project=told.project, claim={}), Settings(fileRoot="/srv"), NOW
    )

    assert told.status.revision == "sha256:" + "b" * 64
    assert (after.apply, after.status) == (before.apply, before.status)


def deleted(told: "Story", **more: Any) -> ProjectView:
    metadata = told.project.metadata.model_copy(update={"deletion_timestamp": "2026-11-23T10:00:00Z"})
    view = ProjectView(told.project.model_copy(update={"metadata": metadata}), claim={"kind": "x"})
    return replace(view, **more)


def test_a_project_that_is_deleted_waits_for_the_runs_that_read_its_dataset_and_names_them(story: Tell) -> None:
    told = story()
    told.run_until(told.now + WHILE)
    uses = (DatasetUse("first", OLD, holds=True), DatasetUse("over", OLD, holds=False))

    plan = reconcile(deleted(told, uses=uses), Settings(), NOW)
    assert plan.status is not None
    again = deleted(told, uses=uses)
    again = replace(again, project=again.project.model_copy(update={"status": plan.status}))

    assert (plan.finalizer, plan.apply) == ("Keep", ())
    assert [(event.type, event.reason) for event in plan.events] == [("Warning", "DatasetInUse")]
    assert "first" in plan.events[0].message
    assert "over" not in plan.events[0].message.partition("The Project goes")[0].split(": ")[1]
    assert reconcile(again, Settings(), NOW).events == ()


GOES = [
    pytest.param((), False, id="nobody uses it"),
    pytest.param((DatasetUse("over", OLD, holds=False),), False, id="the run is over or goes itself"),
    pytest.param((DatasetUse("run", OLD, holds=True),), True, id="the namespace goes away"),
]


@pytest.mark.parametrize(("uses", "terminating"), GOES)
def test_a_project_that_is_deleted_goes_when(uses: tuple[DatasetUse, ...], terminating: bool, story: Tell) -> None:
    told = story()
    told.run_until(told.now + WHILE)

    plan = reconcile(deleted(told, uses=uses, namespace_terminating=terminating), Settings(), NOW)

    assert plan.finalizer == "Remove" if terminating else [obj["kind"] for obj in plan.apply] == ["ConfigMap", "Job"]


def test_what_is_waited_for_is_shown_in_part_when_there_is_much_of_it() -> None:
    message = say_holders([DatasetUse(f"run-{number}", OLD, holds=True) for number in range(9)])

    assert "run-4 and 4 more" in message
    assert "run-7" not in message


@pytest.mark.parametrize("going", [pytest.param(True, id="it is being deleted"), pytest.param(False, id="it is not")])
def test_a_finetune_wakes_its_project_only_when_the_project_waits_for_it(going: bool) -> None:
    metadata: Obj = {"name": "mine", "namespace": "ns", "uid": "p", "resourceVersion": "1"}
    project = {"kind": PROJECT.name, "metadata": {**metadata, **({"deletionTimestamp": "t"} if going else {})}}
    store, run = Store(), make_finetune(pins=OLD)
    store.put(project)
    store.put(run)

    woken = concerned(run, store)

    assert (Key(PROJECT.name, "ns", "mine") in woken) is going
    assert Key(FINETUNE.name, "ns", "run") in woken


def test_the_rules_of_a_dataset_are_all_that_its_content_depends_on(story: Tell) -> None:
    told = story()
    told.run_until(told.now + WHILE)
    before = told.status.rules_digest

    told.edit(schedule="0 3 * * *", timeZone="Europe/Berlin")
    told.rescan("1")
    told.run_until(told.now + WHILE)
    same = told.status.rules_digest
    told.edit(holdout={"fraction": 0.2})
    told.run_until(told.now + WHILE)

    assert isinstance(told.project, Project)
    assert (same, told.status.rules_digest != before) == (before, True)
