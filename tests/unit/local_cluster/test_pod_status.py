"""The status that a pod shows, from the state of its containers."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from codetune_local.kubelet.planning import Backoff, ContainerView, plan_pod
from codetune_local.kubelet.processes import Attempt
from codetune_local.kubelet.status import PodFacts, build_status, quality_of_service, say_delay

Obj = dict[str, Any]
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FACTS = PodFacts(pod_ip="127.130.0.1", host_ip="127.0.0.1", started_at=NOW)


def run(code: int | None, number: int = 0, **more: Any) -> Attempt:
    ended = None if code is None else NOW - timedelta(seconds=2)
    began = NOW - timedelta(seconds=3)
    folder = Path("/pods/uid/containers/main") / str(number)
    return Attempt(number, folder, pid=7, started_at=began, finished_at=ended, exit_code=code, **more)


def status_of(*attempts: Attempt, policy: str = "Always", pod: Obj | None = None, **more: Any) -> Obj:
    """The status of a pod with one container `main`."""
    spec = {"restartPolicy": policy, "containers": [{"name": "main", "image": "x"}]}
    body = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec, **(pod or {})}
    options = {"is_started": True, "is_ready": True, **more}
    view = ContainerView({"name": "main", "image": "x"}, attempts, **options)
    plan = plan_pod(body, [], [view], NOW, Backoff())
    return build_status(body, [], [view], plan, FACTS, NOW)


def conditions(status: Obj) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry.get("reason", "")) for entry in status["conditions"]}


def test_a_pod_before_its_containers_is_pending() -> None:
    status = status_of()
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert conditions(status)["Ready"] == ("False", "ContainersNotReady")


def test_a_running_and_ready_pod_says_so() -> None:
    status = status_of(run(None))
    (main,) = status["containerStatuses"]
    assert (status["phase"], status["podIP"], status["podIPs"]) == ("Running", "127.130.0.1", [{"ip": "127.130.0.1"}])
    assert (main["ready"], main["started"], main["restartCount"]) == (True, True, 0)
    assert main["state"] == {"running": {"startedAt": "2026-05-01T11:59:57Z"}}
    assert {kind: found[0] for kind, found in conditions(status).items()} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }


@pytest.mark.parametrize(
    ("expected", "attempt"),
    [
        pytest.param({"exitCode": 0, "reason": "Completed"}, run(0), id="success"),
        pytest.param({"exitCode": 3, "reason": "Error"}, run(3), id="failure"),
        pytest.param({"exitCode": 137, "reason": "OOMKilled"}, run(137, reason="OOMKilled", signal=9), id="memory"),
        pytest.param({"exitCode": 64, "message": "why"}, run(64, message="why"), id="termination message"),
        pytest.param({"exitCode": 128, "reason": "StartError"}, run(128, reason="StartError"), id="cannot start"),
    ],
)
def test_the_end_of_a_container_is_told_with_its_reason(expected: Obj, attempt: Attempt) -> None:
    state = status_of(attempt, policy="Never")["containerStatuses"][0]["state"]["terminated"]
    assert expected.items() <= state.items()
    assert state["finishedAt"] == "2026-05-01T11:59:58Z"


def test_a_container_that_backs_off_waits_and_shows_its_last_end() -> None:
    (main,) = status_of(run(1, number=4, crashes=4))["containerStatuses"]
    waiting = main["state"]["waiting"]
    assert waiting["reason"] == "CrashLoopBackOff"
    assert waiting["message"] == "back-off 1m20s restarting failed container=main pod=p_n(u)"
    assert main["lastState"]["terminated"]["exitCode"] == 1
    assert main["restartCount"] == 4


def test_a_restarted_container_shows_the_run_before() -> None:
    (main,) = status_of(run(7), run(None, number=1))["containerStatuses"]
    assert (main["restartCount"], main["lastState"]["terminated"]["exitCode"]) == (1, 7)


def test_what_stands_in_the_way_is_the_waiting_reason() -> None:
    (main,) = status_of(problem=("CreateContainerConfigError", 'secret "x" not found'))["containerStatuses"]
    assert main["state"]["waiting"] == {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}


def test_a_succeeded_pod_is_not_ready_because_it_completed() -> None:
    status = status_of(run(0), policy="Never")
    assert status["phase"] == "Succeeded"
    assert conditions(status)["Ready"] == ("False", "PodCompleted")
    assert conditions(status)["Initialized"] == ("True", "PodCompleted")


def test_conditions_of_others_and_their_times_are_kept() -> None:
    mine = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = status_of(run(None), pod={"status": {"conditions": [mine, ready]}})
    kept = {entry["type"]: entry["lastTransitionTime"] for entry in status["conditions"]}
    assert mine in status["conditions"]
    assert kept["Ready"] == "2026-01-01T00:00:00Z"
    assert kept["ContainersReady"] == "2026-05-01T12:00:00Z"


def test_a_readiness_gate_keeps_a_pod_from_being_ready() -> None:
    gated = {"spec": {"containers": [{"name": "main"}], "readinessGates": [{"conditionType": "example.com/fed"}]}}
    assert conditions(status_of(run(None), pod=gated))["Ready"] == ("False", "ReadinessGatesNotReady")


@pytest.mark.parametrize(
    ("expected", "resources"),
    [
        pytest.param("BestEffort", {}, id="nothing asked"),
        pytest.param("Burstable", {"requests": {"cpu": "1"}}, id="requests only"),
        pytest.param("Burstable", {"limits": {"cpu": "1"}}, id="one limit"),
        pytest.param("Guaranteed", {"limits": {"cpu": "1", "memory": "1Gi"}}, id="both limits"),
        pytest.param(
            "Guaranteed",
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}},
            id="requests of the same amount",
        ),
        pytest.param("Burstable", {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, id="less"),
    ],
)
def test_quality_of_service_follows_from_requests_and_limits(expected: str, resources: Obj) -> None:
    assert quality_of_service({"spec": {"containers": [{"name": "main", "resources": resources}]}}) == expected


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1m20s", 80), ("5m0s", 300)])
def test_delays_are_said_as_kubernetes_does(text: str, seconds: float) -> None:
    assert say_delay(seconds) == text
