"""However the controller is interrupted, each pod is counted once.

A whole Job is simulated: every round carries out only a random part of its plan, as if the process was killed
there, and finished pods may be deleted by somebody at any time.
"""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codetune_local.controllers.job import reconcile_job
from codetune_local.controllers.job_indexes import format_indexes, parse_indexes
from codetune_local.controllers.job_pods import TRACKING_FINALIZER
from codetune_local.controllers.job_retrying import RetryDelay
from codetune_local.machinery.actions import Action, Create, Delete, RemoveFinalizer, WriteStatus
from codetune_local.machinery.times import format_time
from hypothesis import given, settings
from hypothesis import strategies as st

Obj = dict[str, Any]


class World:
    """A Job and its pods, with an API server's rules for finalizers."""

    def __init__(self, **spec: Any) -> None:
        template = {"metadata": {}, "spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]}}
        self.job: Obj = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "j", "namespace": "n", "uid": "j"},
            "spec": {"template": template, **spec},
        }
        self.pods: dict[str, Obj] = {}
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.made = 0
        self.outcomes: list[str] = []

    def plan(self) -> tuple[Action, ...]:
        self.now += timedelta(minutes=10)
        pods = copy.deepcopy(list(self.pods.values()))
        plan = reconcile_job(copy.deepcopy(self.job), pods, self.now, RetryDelay(), suffix=self.suffix)
        return plan.actions

    def suffix(self) -> str:
        self.made += 1
        return f"{self.made:05d}"

    def apply(self, action: Action) -> None:
        if isinstance(action, WriteStatus):
            self.job["status"] = copy.deepcopy(action.status)
        elif isinstance(action, Create):
            pod = copy.deepcopy(action.obj)
            pod["metadata"] |= {"uid": pod["metadata"]["name"], "creationTimestamp": format_time(self.now)}
            self.pods[pod["metadata"]["name"]] = pod
        elif isinstance(action, RemoveFinalizer) and action.name in self.pods:
            self.pods[action.name]["metadata"]["finalizers"] = []
            self.collect(action.name)
        elif isinstance(action, Delete):
            self.delete(action.name)

    def delete(self, name: str) -> None:
        if name in self.pods:
            self.pods[name]["metadata"]["deletionTimestamp"] = format_time(self.now)
            self.pods[name].setdefault("status", {}).setdefault("phase", "Failed")
            self.collect(name)

    def collect(self, name: str) -> None:
        metadata = self.pods[name]["metadata"]
        if metadata.get("deletionTimestamp") and not metadata["finalizers"]:
            del self.pods[name]

    def finish_one(self, phase: str) -> None:
        for pod in self.pods.values():
            if "status" not in pod:
                state = {"terminated": {"exitCode": int(phase == "Failed"), "finishedAt": format_time(self.now)}}
                pod["status"] = {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]}
                self.outcomes.append(phase)
                return

    @property
    def is_over(self) -> bool:
        conditions = self.job.get("status", {}).get("conditions", [])
        return any(entry["type"] in ("Complete", "Failed") for entry in conditions)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), indexed=st.booleans())
def test_each_pod_is_counted_once_whatever_is_interrupted(data: st.DataObject, indexed: bool) -> None:
    mode = {"completionMode": "Indexed"} if indexed else {}
    world = World(parallelism=3, completions=4, backoffLimit=100, **mode)
    for _ in range(200):
        if world.is_over:
            break
        actions = world.plan()
        reach = data.draw(st.integers(0, len(actions)), label="actions carried out")
        for action in actions[:reach]:
            world.apply(action)
        world.finish_one(data.draw(st.sampled_from(["Succeeded", "Succeeded", "Failed"]), label="outcome"))
        if data.draw(st.booleans(), label="somebody deletes a finished pod"):
            for name in [name for name, pod in world.pods.items() if "status" in pod][:1]:
                world.delete(name)
    while not world.is_over:  # nobody interrupts any more
        world.finish_one("Succeeded")
        for action in world.plan():
            world.apply(action)
    status = world.job["status"]
    assert status["succeeded"] == 4
    assert status.get("failed", 0) == world.outcomes.count("Failed")
    assert not status["uncountedTerminatedPods"]
    assert not [pod for pod in world.pods.values() if TRACKING_FINALIZER in pod["metadata"]["finalizers"]]


@pytest.mark.parametrize(
    ("text", "indexes"),
    [
        pytest.param("", set(), id="none"),
        pytest.param("0", {0}, id="one"),
        pytest.param("1,2", {1, 2}, id="two neighbours stay apart"),
        pytest.param("1-3", {1, 2, 3}, id="three make a range"),
        pytest.param("0,2-5,9", {0, 2, 3, 4, 5, 9}, id="mixed"),
    ],
)
def test_completed_indexes_are_written_as_kubernetes_does(text: str, indexes: set[int]) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text) == indexes


@given(st.sets(st.integers(0, 60)))
def test_completed_indexes_survive_being_written(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes
