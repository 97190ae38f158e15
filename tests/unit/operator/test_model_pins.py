"""A hub model stays at the commit that it was first fetched at: for a run's attempts, and for all replicas."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.common import ModelPin
from codetune_api.contracts import FetchConfig, ServerReport
from codetune_api.finetune import DatasetStatus, FineTune, FineTuneStatus
from codetune_api.modeldeployment import ModelDeployment
from codetune_api.protocol import ModelEvent
from codetune_operator.reconcile.finetune.status import Decision, build_status
from codetune_operator.reconcile.modeldeployment import reconcile
from codetune_operator.reconcile.observed import FineTuneView, ModelDeploymentView
from codetune_operator.reconcile.plan import Plan
from codetune_operator.resources.finetune.training import build_training
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.runs.report import RunReport, fold, from_status
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
COMMIT, LATER = "c0ffee" * 6 + "c0ff", "beef" * 10
PIN = ModelPin(uri=f"hf://org/name@{COMMIT}", commit=COMMIT)
DATASET = DatasetStatus(revision="sha256:" + "a" * 64)
WAITING = Decision("Starting", "Loading", "It prepares itself.")


def make_finetune(base: str = "hf://org/name", status: Obj | None = None) -> FineTune:
    spec = {"projectRef": {"name": "code"}, "baseModel": base}
    metadata = {"name": "mine", "namespace": "ns", "uid": "u1"}
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune"}
    return FineTune.from_wire({**kind, "metadata": metadata, "spec": spec, "status": status or {}})


def make_deployment(base: str = "hf://org/name", status: Obj | None = None) -> ModelDeployment:
    metadata = {"name": "coder", "namespace": "ns", "uid": "u1"}
    kind = {"apiVersion": "codetune.dev/v1alpha1", "kind": "ModelDeployment"}
    return ModelDeployment.from_wire(
        {**kind, "metadata": metadata, "spec": {"baseModel": base}, "status": status or {}}
    )


def find_model(uri: str) -> ModelSource:
    model = locate_model(uri, Settings())
    assert isinstance(model, ModelSource)
    return model


def test_a_runs_fetch_container_keeps_its_commit_in_the_runs_own_folder() -> None:
    finetune = make_finetune()
    config, _ = build_training(finetune, DATASET, find_model(finetune.spec.base_model), Settings())
    fetch = FetchConfig.model_validate_json(config["data"]["fetch.json"])
    assert fetch.pin == "ns/finetunes/mine/u1/base-model.json"
    assert (fetch.revision, fetch.training) == ("main", True)


def test_the_commit_that_a_run_says_stands_in_its_status() -> None:
    report = fold(RunReport(), ModelEvent(repository="org/name", commit=COMMIT), "2026-11-23T09:59:00Z")
    status = build_status(FineTuneView(make_finetune(), report=report), WAITING, NOW)
    assert status.base_model == PIN
    assert from_status(status).base_model == PIN


def test_the_commit_stays_when_the_operator_has_not_read_it_again() -> None:
    finetune = make_finetune().model_copy(update={"status": FineTuneStatus(base_model=PIN)})
    assert build_status(FineTuneView(finetune), WAITING, NOW).base_model == PIN


def pods_that_say(*commits: str | None) -> Obj:
    names = [f"p{number}" for number in range(len(commits))]
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "pods": tuple({"metadata": {"name": name}, "status": ready} for name in names),
        "server_reports": {
            name: ServerReport(ready=True, adapters=[], models=["name"], model_commit=commit)
            for name, commit in zip(names, commits, strict=True)
        },
    }


def plan_for(deployment: ModelDeployment, **more: Any) -> Plan:
    return reconcile(replace(ModelDeploymentView(deployment, operator_key=b"k" * 32), **more), Settings(), NOW)


@pytest.mark.parametrize(
    ("expected", "base", "before", "commits"),
    [
        pytest.param(PIN, "hf://org/name", None, [COMMIT], id="the first pod says it"),
        pytest.param(PIN, "hf://org/name@v2", None, [None, COMMIT], id="an older server does not say it"),
        pytest.param(PIN, "hf://org/name", PIN, [LATER], id="it stays"),
        pytest.param(PIN, "hf://org/name", PIN, [], id="it stays while no pod answers"),
        pytest.param(None, "hf://org/name", None, [], id="not known yet"),
        pytest.param(None, "pvc://models/base", None, [None], id="not from the hub"),
    ],
)
def test_what_the_pods_of_a_deployment_serve_stands_in_its_status(
    expected: ModelPin | None, base: str, before: ModelPin | None, commits: list[str | None]
) -> None:
    status = {"baseModel": before.to_wire()} if before else {}
    told = plan_for(make_deployment(base, status), **pods_that_say(*commits)).status
    assert told is not None
    assert told.to_wire().get("baseModel") == (expected.to_wire() if expected else None)


def make_served(commit: str | None) -> FineTune:
    uri = "pvc://codetune-artifacts/ns/finetunes/mine/u1/checkpoints/step-000010"
    entry = {"name": "step-000010", "step": 10, "uri": uri, "digest": "sha256:" + "1" * 64}
    pin = {"baseModel": {"uri": f"hf://org/name@{commit}", "commit": commit}} if commit else {}
    done = {"phase": "Succeeded", "checkpoints": [entry], "bestCheckpoint": "step-000010", **pin}
    return make_finetune(status=done)


@pytest.mark.parametrize(
    ("expected", "status", "trained"),
    [
        pytest.param("main", {}, None, id="before anything is known"),
        pytest.param(COMMIT, {}, COMMIT, id="the first pods, for an adapter that was made on it"),
        pytest.param(COMMIT, {"baseModel": PIN.to_wire()}, None, id="later replicas, that of the first"),
        pytest.param(COMMIT, {"baseModel": PIN.to_wire()}, LATER, id="later replicas, whatever an adapter was made on"),
    ],
)
def test_pods_fetch_the_commit(expected: str, status: Obj, trained: str | None) -> None:
    wire = make_deployment(status=status).to_wire()
    wire["spec"]["adapters"] = [{"name": "mine", "fineTuneRef": {"name": "mine"}}]
    plan = plan_for(ModelDeployment.from_wire(wire), finetunes={"mine": make_served(trained)})
    (fetch,) = [built for built in plan.apply if "fetch.json" in built.get("data", {})]
    told = json.loads(fetch["data"]["fetch.json"])
    assert told["revision"] == expected
    assert not told["training"]


def test_a_commit_that_becomes_known_changes_no_pod() -> None:
    before, after = (
        next(child for child in plan_for(make_deployment(status=status)).apply if child["kind"] == "Deployment")
        for status in ({}, {"baseModel": PIN.to_wire()})
    )
    assert before == after
