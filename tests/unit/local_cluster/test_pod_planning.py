"""Which containers start, restart or stop: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from codetune_local.kubelet.planning import Backoff, ContainerView, PodPlan, Start, plan_pod
from codetune_local.kubelet.processes import Attempt

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BACKOFF = Backoff(base=10, cap=300, reset_after=600)


def run(code: int | None, *, number: int = 0, crashes: int = 0, ago: float = 100, lasted: float = 1) -> Attempt:
    """A run of a container; `code` None runs still. `ago` is when it ended (seconds)."""
    ended = None if code is None else NOW - timedelta(seconds=ago)
    began = NOW - timedelta(seconds=ago + lasted)
    folder = Path("/pods/uid/containers/main") / str(number)
    return Attempt(number, folder, crashes, pid=7, started_at=began, finished_at=ended, exit_code=code)


def view(name: str, *attempts: Attempt, started: bool = True, ready: bool = True, **more: Any) -> ContainerView:
    spec = {"name": name, **({"restartPolicy": "Always"} if more.pop("sidecar", False) else {})}
    return ContainerView(spec, attempts, is_started=started, is_ready=ready, **more)


def plan(policy: str, *mains: ContainerView, inits: tuple[ContainerView, ...] = ()) -> PodPlan:
    return plan_pod({"spec": {"restartPolicy": policy}}, inits, mains, NOW, BACKOFF)


def test_a_new_pod_starts_all_containers_at_once() -> None:
    assert plan("Always", view("a"), view("b")).starts == (Start("a", 0, 0), Start("b", 0, 0))


@pytest.mark.parametrize(
    ("restarts", "policy", "code"),
    [
        pytest.param(True, "Always", 0, id="Always after success"),
        pytest.param(True, "Always", 1, id="Always after failure"),
        pytest.param(False, "OnFailure", 0, id="OnFailure after success"),
        pytest.param(True, "OnFailure", 1, id="OnFailure after failure"),
        pytest.param(False, "Never", 1, id="Never"),
    ],
)
def test_the_restart_policy_decides(restarts: bool, policy: str, code: int) -> None:
    assert bool(plan(policy, view("a", run(code))).starts) is restarts


@pytest.mark.parametrize(
    ("delay", "crashes"),
    [
        pytest.param(0, 0, id="the first restart is at once"),
        pytest.param(10, 1, id="then ten seconds"),
        pytest.param(20, 2, id="then twenty"),
        pytest.param(160, 5, id="doubling"),
        pytest.param(300, 6, id="five minutes at most"),
        pytest.param(300, 60, id="for ever"),
    ],
)
def test_a_container_that_keeps_crashing_waits_longer_each_time(delay: float, crashes: int) -> None:
    found = plan("Always", view("a", run(1, number=crashes, crashes=crashes, ago=0)))
    if delay:
        assert (found.starts, found.backing_off, found.look_again) == ((), {"a": delay}, delay)
    else:
        assert found.starts == (Start("a", crashes + 1, crashes + 1),)


def test_a_run_of_ten_minutes_starts_the_count_anew() -> None:
    found = plan("Always", view("a", run(1, number=9, crashes=9, ago=0, lasted=600)))
    assert found.starts == (Start("a", 10, 1),)


@pytest.mark.parametrize(
    ("phase", "policy", "codes"),
    [
        pytest.param("Succeeded", "Never", [0, 0], id="all well"),
        pytest.param("Failed", "Never", [0, 3], id="one failed"),
        pytest.param(None, "Never", [0, None], id="one runs"),
        pytest.param("Succeeded", "OnFailure", [0, 0], id="OnFailure, all well"),
        pytest.param(None, "OnFailure", [0, 3], id="OnFailure tries again"),
        pytest.param(None, "Always", [0, 0], id="Always never ends"),
    ],
)
def test_a_pod_is_over_when_nothing_will_run_any_more(phase: str | None, policy: str, codes: list[int | None]) -> None:
    assert plan(policy, *(view(f"c{index}", run(code)) for index, code in enumerate(codes))).phase == phase


def test_init_containers_run_one_after_the_other() -> None:
    first = plan("Always", view("main"), inits=(view("a"), view("b")))
    assert (first.starts, first.is_initialized) == ((Start("a", 0, 0),), False)
    second = plan("Always", view("main"), inits=(view("a", run(0)), view("b")))
    assert second.starts == (Start("b", 0, 0),)
    third = plan("Always", view("main"), inits=(view("a", run(0)), view("b", run(0))))
    assert (third.starts, third.is_initialized) == ((Start("main", 0, 0),), True)


def test_a_failing_init_container_fails_the_pod_or_is_tried_again() -> None:
    inits = (view("a", run(2)), view("b"))
    assert plan("Never", view("main"), inits=inits).phase == "Failed"
    assert plan("Always", view("main"), inits=inits).starts == (Start("a", 1, 1),)


def test_a_sidecar_must_have_started_before_the_next_container() -> None:
    waiting = plan("Never", view("main"), inits=(view("proxy", run(None), started=False, sidecar=True),))
    assert waiting.starts == ()
    going = plan("Never", view("main"), inits=(view("proxy", run(None), sidecar=True),))
    assert going.starts == (Start("main", 0, 0),)


def test_a_sidecar_is_restarted_whatever_the_policy_and_stopped_at_the_end() -> None:
    crashed = plan("Never", view("main", run(None)), inits=(view("proxy", run(1), sidecar=True),))
    assert crashed.starts == (Start("proxy", 1, 1),)
    over = plan("Never", view("main", run(0)), inits=(view("proxy", run(None), sidecar=True),))
    assert (over.stops, over.phase) == (("proxy",), None)
    gone = plan("Never", view("main", run(0)), inits=(view("proxy", run(143), sidecar=True),))
    assert gone.phase == "Succeeded"


def test_a_container_that_could_not_be_created_waits_for_its_next_try() -> None:
    later = NOW + timedelta(seconds=4)
    found = plan("Always", view("a", problem=("ErrImagePull", "no"), retry_at=later))
    assert (found.starts, found.look_again) == ((), 4)
