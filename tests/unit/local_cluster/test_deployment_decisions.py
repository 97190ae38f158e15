"""Rolling out Deployments: the arithmetic of a rollout, revisions, conditions. A simulation checks the bounds."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codetune_local.controllers.deployment import HASH_LABEL, REVISION, reconcile_deployment
from codetune_local.controllers.deployment_scaling import Bounds, resolve_bounds
from codetune_local.machinery.actions import Create, Delete, Patch, Plan, WriteStatus
from codetune_local.machinery.times import format_time
from hypothesis import given, settings
from hypothesis import strategies as st

Obj = dict[str, Any]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def make_deployment(image: str = "v1", status: Obj | None = None, **spec: Any) -> Obj:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    body = {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    metadata = {"name": "web", "namespace": "n", "uid": "d", "generation": 1}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": body, "status": status or {}}


def make_replicaset(image: str, replicas: int, *, up: int | None = None, revision: int = 1, name: str = "") -> Obj:
    """A ReplicaSet with `up` available pods (all, if not given)."""
    template = copy.deepcopy(make_deployment(image)["spec"]["template"])
    template["metadata"]["labels"][HASH_LABEL] = image
    up = replicas if up is None else up
    return {
        "metadata": {
            "name": name or f"web-{image}",
            "namespace": "n",
            "uid": name or image,
            "annotations": {REVISION: str(revision)},
            "creationTimestamp": format_time(NOW + timedelta(seconds=revision)),
        },
        "spec": {"replicas": replicas, "template": template},
        "status": {"replicas": replicas, "readyReplicas": up, "availableReplicas": up},
    }


def decide(deployment: Obj, *replicasets: Obj, pods: tuple[Obj, ...] = ()) -> Plan:
    return reconcile_deployment(deployment, replicasets, pods, NOW)


def scaled(plan: Plan) -> dict[str, int]:
    """ReplicaSet → new size."""
    patches = [action for action in plan.actions if isinstance(action, Patch)]
    return {action.name: action.patch["spec"]["replicas"] for action in patches if "spec" in action.patch}


def status_of(plan: Plan) -> Obj:
    return next(action.status for action in plan.actions if isinstance(action, WriteStatus))


def condition(plan: Plan, kind: str) -> tuple[str, str]:
    found = next(entry for entry in status_of(plan)["conditions"] if entry["type"] == kind)
    return found["status"], found["reason"]


@pytest.mark.parametrize(
    ("bounds", "rolling", "replicas"),
    [
        pytest.param(Bounds(1, 0), {}, 3, id="a quarter, surge up and unavailable down"),
        pytest.param(Bounds(3, 2), {}, 10, id="a quarter of ten"),
        pytest.param(Bounds(2, 1), {"maxSurge": 2, "maxUnavailable": 1}, 3, id="numbers"),
        pytest.param(Bounds(0, 1), {"maxSurge": 0, "maxUnavailable": 0}, 3, id="never both none"),
        pytest.param(Bounds(3, 0), {"maxSurge": "100%", "maxUnavailable": "0%"}, 3, id="all at once"),
    ],
)
def test_bounds_of_a_rollout_are_rounded_so_that_it_moves(bounds: Bounds, rolling: Obj, replicas: int) -> None:
    assert resolve_bounds(make_deployment(replicas=replicas, strategy={"rollingUpdate": rolling})) == bounds


def test_a_new_deployment_gets_a_replicaset_of_its_template() -> None:
    plan = decide(make_deployment())
    (create,) = [action for action in plan.actions if isinstance(action, Create)]
    digest = create.obj["metadata"]["labels"][HASH_LABEL]
    assert create.obj["metadata"]["name"] == f"web-{digest}"
    assert create.obj["metadata"]["annotations"][REVISION] == "1"
    assert create.obj["spec"]["replicas"] == 3
    assert create.obj["spec"]["selector"]["matchLabels"] == {"app": "web", HASH_LABEL: digest}
    assert create.obj["metadata"]["ownerReferences"][0]["uid"] == "d"


ONE = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
MISSING = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


@pytest.mark.parametrize(
    ("changes", "strategy", "new", "old"),
    [
        pytest.param({"web-v2": 1}, ONE, (0, 0), (3, 3), id="grow by the surge"),
        pytest.param({}, ONE, (1, 0), (3, 3), id="wait until the new one is up"),
        pytest.param({"web-v1": 2}, ONE, (1, 1), (3, 3), id="then shrink the old"),
        pytest.param({"web-v2": 2}, ONE, (1, 1), (2, 2), id="and grow again"),
        pytest.param({"web-v1": 0}, ONE, (3, 3), (1, 1), id="the last old one goes"),
        pytest.param({"web-v1": 2}, MISSING, (0, 0), (3, 3), id="without surge the old shrink first"),
        pytest.param({"web-v2": 1}, MISSING, (0, 0), (2, 2), id="then the new grow"),
        pytest.param({"web-v1": 2}, ONE, (1, 1), (3, 2), id="what is not up goes first"),
    ],
)
def test_a_rolling_update_goes_step_by_step(changes: Obj, strategy: Obj, new: Any, old: Any) -> None:
    sets = make_replicaset("v2", new[0], up=new[1], revision=2), make_replicaset("v1", old[0], up=old[1])
    assert scaled(decide(make_deployment("v2", strategy=strategy), *sets)) == changes


def test_recreate_stops_the_old_before_it_starts_the_new() -> None:
    deployment = make_deployment("v2", strategy={"type": "Recreate"})
    new, old = make_replicaset("v2", 0, revision=2), make_replicaset("v1", 3)
    assert scaled(decide(deployment, new, old)) == {"web-v1": 0}
    going = {"metadata": {"ownerReferences": [{"uid": "v1"}]}, "status": {"phase": "Running"}}
    old = make_replicaset("v1", 0)
    assert scaled(decide(deployment, new, old, pods=(going,))) == {}
    assert scaled(decide(deployment, new, old)) == {"web-v2": 3}


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    deployment = make_deployment("v2", paused=True, replicas=5)
    plan = decide(deployment, make_replicaset("v1", 3))
    assert scaled(plan) == {"web-v1": 5}
    assert not [action for action in plan.actions if isinstance(action, Create)]


def test_a_template_that_comes_back_gets_the_next_revision() -> None:
    plan = decide(make_deployment("v1"), make_replicaset("v1", 0, revision=1), make_replicaset("v2", 3, revision=2))
    revisions = {
        action.name: action.patch["metadata"]["annotations"][REVISION]
        for action in plan.actions
        if isinstance(action, Patch) and "spec" not in action.patch
    }
    assert revisions == {"web-v1": "3", "web": "3"}


def test_only_as_many_old_replicasets_are_kept_as_the_limit_says() -> None:
    olds = [make_replicaset(f"o{number}", 0, revision=number) for number in range(1, 5)]
    plan = decide(make_deployment("v9", revisionHistoryLimit=2), make_replicaset("v9", 3, revision=9), *olds)
    assert [action.name for action in plan.actions if isinstance(action, Delete)] == ["web-o1", "web-o2"]


def test_a_rollout_that_is_done_is_available_and_progressed() -> None:
    plan = decide(make_deployment(), make_replicaset("v1", 3))
    assert condition(plan, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition(plan, "Progressing") == ("True", "NewReplicaSetAvailable")
    numbers = {key: value for key, value in status_of(plan).items() if key.endswith("eplicas")}
    assert numbers == {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3}


@pytest.mark.parametrize(
    ("expected", "seconds"), [(("True", "ReplicaSetUpdated"), 599), (("False", "ProgressDeadlineExceeded"), 600)]
)
def test_a_rollout_that_stands_still_times_out(expected: tuple[str, str], seconds: int) -> None:
    since = format_time(NOW - timedelta(seconds=seconds))
    progressing = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "m"}
    progressing |= {"lastTransitionTime": since, "lastUpdateTime": since}
    before = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "conditions": [progressing]}
    plan = decide(make_deployment(status=before), make_replicaset("v1", 3, up=0))
    assert condition(plan, "Progressing") == expected
    assert condition(plan, "Available") == ("False", "MinimumReplicasUnavailable")


class Rollout:
    """A Deployment with its ReplicaSets, whose pods come up and go one by one."""

    def __init__(self, surge: int, unavailable: int, replicas: int) -> None:
        strategy = {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        self.deployment = make_deployment("v1", replicas=replicas, strategy=strategy)
        self.sets: dict[str, Obj] = {}

    def step(self) -> None:
        for action in decide(self.deployment, *self.sets.values()).actions:
            if isinstance(action, Create):
                image = action.obj["spec"]["template"]["spec"]["containers"][0]["image"]
                name = action.obj["metadata"]["name"]
                self.sets[name] = make_replicaset(image, 0, revision=len(self.sets) + 1, name=name)
                self.sets[name]["spec"]["replicas"] = action.obj["spec"]["replicas"]
            elif isinstance(action, Patch) and action.name in self.sets:
                present: Obj = self.sets[action.name]["spec"]
                present["replicas"] = (action.patch.get("spec") or present)["replicas"]
            elif isinstance(action, WriteStatus):
                self.deployment["status"] = action.status
        for found in self.sets.values():  # what is too much goes at once, and from what is up last of all
            status, wanted = found["status"], found["spec"]["replicas"]
            status["replicas"] = wanted
            status["availableReplicas"] = min(status["availableReplicas"], wanted)

    def come_up(self, which: int) -> None:
        waiting = [
            found["status"]
            for found in self.sets.values()
            if found["status"]["availableReplicas"] < found["status"]["replicas"]
        ]
        if waiting:
            waiting[which % len(waiting)]["availableReplicas"] += 1

    def up(self) -> int:
        return sum(found["status"]["availableReplicas"] for found in self.sets.values())

    def size(self) -> int:
        return sum(found["spec"]["replicas"] for found in self.sets.values())


@settings(max_examples=80, deadline=None)
@given(
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    replicas=st.integers(1, 6),
    order=st.lists(st.integers(0, 5), max_size=40),
)
def test_a_rollout_keeps_within_its_bounds_and_ends(
    surge: int, unavailable: int, replicas: int, order: list[int]
) -> None:
    rollout = Rollout(surge, unavailable, replicas)
    for _ in range(60):
        rollout.step()
        rollout.come_up(0)
    assert rollout.up() == replicas
    bounds = resolve_bounds(rollout.deployment)
    rollout.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "v2"
    for which in [*order, *[0] * 80]:
        rollout.step()
        assert rollout.size() <= replicas + bounds.surge
        assert rollout.up() >= replicas - bounds.unavailable
        rollout.come_up(which)
    sizes = sorted(
        (found["spec"]["template"]["spec"]["containers"][0]["image"], found["spec"]["replicas"])
        for found in rollout.sets.values()
    )
    assert sizes == [("v1", 0), ("v2", replicas)]
