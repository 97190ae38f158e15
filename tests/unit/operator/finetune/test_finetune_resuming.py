"""A run that resumes from another FineTune: what it waits for, what it refuses, what it pins, and who waits for it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.contracts import FetchConfig, TrainConfig
from codetune_api.finetune import FineTune
from codetune_api.project import Project
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.waking import concerned
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.finetune.resuming import find_resuming
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
REVISION, COMMIT = "sha256:" + "a" * 64, "c0ffee" * 6 + "c0ff"
CLAIM: Obj = {"metadata": {"name": "codetune-artifacts"}}
DELETED: Obj = {"deletionTimestamp": "2026-11-23T09:00:00Z", "finalizers": ["codetune.dev/artifacts"]}
BASE = "pvc://models/base"


def make_finetune(name: str, *, base: str = BASE, status: Obj | None = None, metadata: Obj | None = None) -> FineTune:
    spec: Obj = {"projectRef": {"name": "code"}, "baseModel": base}
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune"}
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": 1, **(metadata or {})}
    return FineTune.from_wire({**kind, "metadata": metadata, "spec": spec, "status": status or {}})


def make_resuming(checkpoint: str | None = None, base: str = BASE, status: Obj | None = None) -> FineTune:
    wire = make_finetune("mine", base=base, status=status).to_wire()
    wire["spec"]["resumeFrom"] = {
        "fineTuneRef": {"name": "other"},
        **({"checkpoint": checkpoint} if checkpoint else {}),
    }
    return FineTune.from_wire({**wire, "metadata": {**wire["metadata"], "finalizers": ["codetune.dev/artifacts"]}})


def entry(step: int) -> Obj:
    name = f"step-{step:06d}"
    uri = f"pvc://codetune-artifacts/ns/finetunes/other/uid-other/checkpoints/{name}"
    return {"name": name, "step": step, "uri": uri, "digest": f"sha256:{step:064d}"}


KEPT: Obj = {
    "checkpoints": [entry(40), entry(60)],
    "bestCheckpoint": "step-000040",
    "latestCheckpoint": "step-000060",
}
DONE = make_finetune("other", status={"phase": "Succeeded", **KEPT})


def make_project() -> Project:
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project"}
    status = {"phase": "Ready", "observedGeneration": 1, "revision": REVISION}
    spec = {"sources": [{"name": "a", "git": {"url": "https://example.org/a.git"}}]}
    metadata = {"name": "code", "namespace": "ns", "generation": 1}
    return Project.from_wire({**kind, "metadata": metadata, "spec": spec, "status": status})


def plan_for(finetune: FineTune, other: FineTune | None, **more: Any) -> Plan:
    view = FineTuneView(finetune, project=make_project(), start=other, claim=CLAIM)
    return reconcile(replace(view, **more), Settings(), NOW)


def told(plan: Plan) -> Obj:
    assert plan.status is not None
    return plan.status.to_wire()


def ready(plan: Plan) -> Obj:
    (condition,) = [found for found in told(plan)["conditions"] if found["type"] == "Ready"]
    found: Obj = condition
    return found


def failed(**more: Any) -> FineTune:
    failure = {"reason": "DivergedLoss", "message": "The loss is no number."}
    return make_finetune("other", status={"phase": "Failed", "failure": failure, **more})


WAITING = [
    pytest.param("FineTuneMissing", "create it", None, id="not there"),
    pytest.param("FineTuneMissing", "being deleted", make_finetune("other", metadata=DELETED), id="going"),
    pytest.param("FineTuneNotReady", "Pending", make_finetune("other"), id="not looked at yet"),
    pytest.param(
        "FineTuneNotReady", "Running", make_finetune("other", status={"phase": "Running", **KEPT}), id="at work"
    ),
    pytest.param("FineTuneNotReady", "DivergedLoss", failed(), id="failed without a checkpoint"),
]


@pytest.mark.parametrize(("reason", "word", "other"), WAITING)
def test_the_run_waits_says_for_what_and_starts_when_it_is_there(
    reason: str, word: str, other: FineTune | None
) -> None:
    waiting = plan_for(make_resuming(), other)
    assert told(waiting)["phase"] == "WaitingForData"
    assert ready(waiting)["reason"] == reason
    assert "'other'" in ready(waiting)["message"]
    assert word in ready(waiting)["message"]
    assert waiting.apply == ()
    assert "resumedFrom" not in told(waiting)
    healed = plan_for(FineTune.from_wire({**make_resuming().to_wire(), "status": told(waiting)}), DONE)
    assert [child["kind"] for child in healed.apply] == ["ConfigMap", "Job"]


REFUSED = [
    pytest.param(
        "for base model pvc://models/wide",
        make_resuming(),
        make_finetune("other", base="pvc://models/wide", status={"phase": "Running"}),
        id="another base model, told while it still runs",
    ),
    pytest.param("it kept: step-000040, step-000060", make_resuming("step-20"), DONE, id="a step that was not kept"),
]


@pytest.mark.parametrize(("said", "finetune", "other"), REFUSED)
def test_what_can_not_be_resumed_from_is_refused(said: str, finetune: FineTune, other: FineTune) -> None:
    plan = plan_for(finetune, other)
    assert told(plan)["phase"] == "Failed"
    assert told(plan)["failure"]["reason"] == "IncompatibleCheckpoint"
    assert said in told(plan)["failure"]["message"]
    assert told(plan)["failure"]["hint"]
    assert plan.apply == ()


@pytest.mark.parametrize(
    ("step", "checkpoint", "other"),
    [
        pytest.param(40, None, DONE, id="the best by default"),
        pytest.param(40, "best", DONE, id="best"),
        pytest.param(60, "latest", DONE, id="latest"),
        pytest.param(60, "step-60", DONE, id="a step"),
        pytest.param(60, "step-000060", DONE, id="a step by its name"),
        pytest.param(40, "best", failed(**KEPT), id="what a failed run kept"),
    ],
)
def test_a_checkpoint_is_chosen_and_pinned(step: int, checkpoint: str | None, other: FineTune) -> None:
    plan = plan_for(make_resuming(checkpoint), other)
    expected = entry(step)
    pinned = {"fineTune": "other", "checkpoint": expected["name"], "uri": expected["uri"], "digest": expected["digest"]}
    assert told(plan)["resumedFrom"] == pinned
    config = TrainConfig.model_validate_json(plan.apply[0]["data"]["config.json"])
    assert config.start is not None
    assert config.start.path == f"ns/finetunes/other/uid-other/checkpoints/{expected['name']}"
    assert (config.start.digest, config.start.fine_tune) == (expected["digest"], "other")


def test_what_is_pinned_stays_whatever_becomes_of_the_other_run() -> None:
    status = told(plan_for(make_resuming(), DONE))
    later = FineTune.from_wire({**make_resuming().to_wire(), "status": status})
    for other in (None, make_finetune("other", status={"phase": "Running"})):
        plan = plan_for(later, other)
        assert told(plan)["resumedFrom"] == status["resumedFrom"]
        assert [child["kind"] for child in plan.apply] == ["ConfigMap", "Job"]


def test_a_run_that_resumes_from_nobody_has_no_start() -> None:
    plan = plan_for(make_finetune("mine"), None)
    assert "start" not in json.loads(plan.apply[0]["data"]["config.json"])
    assert "resumedFrom" not in told(plan)


PIN: Obj = {"baseModel": {"uri": f"hf://org/name@{COMMIT}", "commit": COMMIT}}


@pytest.mark.parametrize("base", ["hf://org/name", f"hf://org/name@{COMMIT}"])
def test_the_base_model_is_the_very_commit_of_the_other_run(base: str) -> None:
    other = make_finetune("other", base="hf://org/name@main", status={"phase": "Succeeded", **KEPT, **PIN})
    plan = plan_for(make_resuming(base=base), other)
    assert FetchConfig.model_validate_json(plan.apply[0]["data"]["fetch.json"]).revision == COMMIT


def test_another_commit_of_the_same_model_is_another_base_model() -> None:
    other = make_finetune("other", base="hf://org/name@main", status={"phase": "Succeeded", **KEPT, **PIN})
    assert told(plan_for(make_resuming(base="hf://org/name@v1"), other))["phase"] == "Failed"


def as_stored(phase: str, *, resumed: str = "other", **metadata: Any) -> Obj:
    return {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": "mine", "namespace": "ns", "uid": "u", "resourceVersion": "1", **metadata},
        "spec": {"resumeFrom": {"fineTuneRef": {"name": "other"}}},
        "status": {"phase": phase, **({"resumedFrom": {"fineTune": resumed}} if resumed else {})},
    }


@pytest.mark.parametrize(
    ("held", "finetune"),
    [
        pytest.param(("mine",), as_stored("Running"), id="at work"),
        pytest.param(("mine",), as_stored("Suspended"), id="suspended"),
        pytest.param((), as_stored("Succeeded"), id="done"),
        pytest.param((), as_stored("Failed"), id="failed"),
        pytest.param((), as_stored("WaitingForData", resumed=""), id="still waiting for it"),
        pytest.param((), as_stored("Running", **DELETED), id="going itself"),
        pytest.param((), as_stored("Running", resumed="third"), id="started from another one"),
        pytest.param((), {"metadata": {"name": "new"}}, id="without a status"),
    ],
)
def test_runs_that_are_not_over_hold_on_to_what_they_started_from(held: tuple[str, ...], finetune: Obj) -> None:
    assert find_resuming("other", [finetune]) == held


def test_what_another_run_started_from_is_not_purged_and_says_why() -> None:
    going = make_finetune("other", status={"phase": "Succeeded", **KEPT}, metadata=DELETED)
    plan = plan_for(going, None, resumed_by=("mine",))
    assert (plan.apply, plan.finalizer) == ((), "Keep")
    assert ready(plan)["reason"] == "InUse"
    assert "FineTune 'mine'" in ready(plan)["message"]
    assert [child["kind"] for child in plan_for(going, None).apply] == ["ConfigMap", "Job"]


def test_each_wakes_the_other() -> None:
    store = Store()
    mine, other = as_stored("WaitingForData", resumed=""), as_stored("Running", resumed="", name="other")
    other["spec"] = {}
    for finetune in (mine, other):
        store.put(finetune)
    assert Key("FineTune", "ns", "mine") in concerned(other, store)
    assert Key("FineTune", "ns", "other") not in concerned(mine, store)
    other["metadata"] |= {**DELETED, "resourceVersion": "2"}
    store.put(other)
    assert Key("FineTune", "ns", "other") in concerned(mine, store)
