"""A pod that is killed for its memory leaves no word: the operator sees it, and tells the run's next attempt."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_api.finetune import FineTune
from codetune_api.metadata import FINALIZER
from codetune_operator.reconcile.finetune import reconcile
from codetune_operator.reconcile.observed import FineTuneView
from codetune_operator.reconcile.workloads import count_memory_deaths
from codetune_operator.resources.finetune.training import build_training, pin_dataset, training_job_name
from codetune_operator.resources.models import ModelSource, locate_model
from codetune_operator.runs.report import RunReport
from codetune_operator.settings import Settings

Obj = dict[str, Any]
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
BEFORE = "2026-11-23T09:59:00Z"
REVISION = "sha256:" + "a" * 64
OOM: Obj = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
KILLED: Obj = {"terminated": {"reason": "Error", "exitCode": 137}}
LOST: Obj = {"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137}}
CRASHED: Obj = {"terminated": {"reason": "Error", "exitCode": 1}}
RUNNING: Obj = {"running": {"startedAt": BEFORE}}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
MINE = FineTune.from_wire(
    {
        "apiVersion": "codetune.dev/v1alpha1",
        "kind": "FineTune",
        "metadata": {"name": "mine", "namespace": "ns", "uid": "u1", "generation": 3, "finalizers": [FINALIZER]},
        "spec": {"projectRef": {"name": "code"}, "baseModel": "pvc://models/base"},
        "status": {"dataset": {"revision": REVISION, "uri": "pvc://codetune-artifacts/x"}},
    }
)
DATASET = pin_dataset(MINE, REVISION)


def make_pod(state: Obj, name: str = "p1", phase: str = "Failed", conditions: Any = (), **metadata: str) -> Obj:
    entry = {"name": "train", "image": "t", "state": state, "restartCount": 0}
    labels = {"job-name": training_job_name(MINE, DATASET)}
    return {
        "metadata": {"name": name, "labels": labels, "creationTimestamp": BEFORE, **metadata},
        "spec": {"containers": [{"name": "train"}]},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": [entry]},
    }


def evicted(state: Obj) -> Obj:
    """As a kubelet leaves it; the condition is not there in every version of Kubernetes."""
    pod = make_pod(state)
    return {**pod, "status": {**pod["status"], "reason": "Evicted", "message": "The node was low on resource: memory."}}


DEATHS = [
    pytest.param(1, make_pod(OOM), id="the node says so"),
    pytest.param(1, make_pod(KILLED), id="killed, and nobody asked it to end"),
    pytest.param(0, make_pod(KILLED, conditions=DISRUPTED), id="evicted, and not done in time"),
    pytest.param(0, evicted(KILLED), id="evicted by its kubelet at once"),
    pytest.param(1, evicted(OOM), id="evicted by its kubelet after it had died"),
    pytest.param(0, make_pod(KILLED, deletionTimestamp=BEFORE), id="deleted, and not done in time"),
    pytest.param(1, make_pod(OOM, deletionTimestamp=BEFORE), id="deleted after it had died"),
    pytest.param(0, make_pod(LOST), id="lost by its kubelet, which says 137 of each such container"),
    pytest.param(0, make_pod(CRASHED), id="failed by itself"),
    pytest.param(0, make_pod(RUNNING, phase="Running"), id="at work"),
    pytest.param(0, {**make_pod(RUNNING), "status": {"phase": "Failed"}}, id="its node is lost"),
]


@pytest.mark.parametrize(("expected", "pod"), DEATHS)
def test_what_counts_as_a_death_of_memory(expected: int, pod: Obj) -> None:
    assert count_memory_deaths([pod], "train") == expected
    assert count_memory_deaths([pod, make_pod(OOM, "p2")], "train") == expected + 1


def plan_with(*pods: Obj, report: RunReport | None = None) -> tuple[Obj, ...]:
    """What is applied for a run whose Job has these pods."""
    model = locate_model(MINE.spec.base_model, Settings())
    assert isinstance(model, ModelSource)
    *_, job = build_training(MINE, DATASET, model, Settings())
    live = {**job, "metadata": {**job["metadata"], "uid": "j1"}, "status": {"failed": len(pods)}}
    claim = {"metadata": {"name": "codetune-artifacts"}}
    view = FineTuneView(
        finetune=MINE, project=None, claim=claim, jobs=(live,), pods=pods, report=report or RunReport()
    )  # fmt: skip
    return reconcile(view, Settings(), NOW).apply


@pytest.mark.parametrize(
    ("deaths", "pods"),
    [
        pytest.param(1, [make_pod(OOM)], id="between two attempts"),
        pytest.param(2, [make_pod(OOM), make_pod(OOM, "p2")], id="a second time"),
        pytest.param(
            1, [make_pod(OOM), make_pod({"waiting": {}}, "p2", "Pending")], id="the next pod is there, and waits"
        ),
    ],
)
def test_the_next_attempt_is_told_by_its_configuration_and_the_job_stays_as_it_is(deaths: int, pods: list[Obj]) -> None:
    (config,) = plan_with(*pods)
    assert (config["kind"], config["metadata"]["name"]) == ("ConfigMap", training_job_name(MINE, DATASET))
    assert [json.loads(text)["memoryDeaths"] for text in config["data"].values()] == [deaths]


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param([make_pod(CRASHED)], id="it failed by itself"),
        pytest.param([make_pod(OOM), make_pod(RUNNING, "p2", "Running")], id="the next attempt is at work already"),
    ],
)
def test_nothing_is_applied_where_there_is_nothing_to_tell(pods: list[Obj]) -> None:
    assert plan_with(*pods, report=RunReport(stage="Training")) == ()
