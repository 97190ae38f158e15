"""The pods of a ModelDeployment: what they are told, what is read of them, and when a rank replaces them."""

from dataclasses import replace

import pytest
from codetune_api.contracts import ServerReport
from codetune_operator.reconcile.modeldeployment.deciding import LOOK_AGAIN_SECONDS, SETTLE_SECONDS, reconcile
from codetune_operator.reconcile.plan import Follow
from codetune_operator.resources.modeldeployment.names import adapter_token
from codetune_operator.resources.modeldeployment.serving import fetch_nonce
from codetune_operator.runs.report import RunReport
from unit.operator.modeldeployment.situations import (
    BACKOFF,
    BARE_REPORT,
    FORMER,
    KEY,
    MINE,
    NOW,
    SETTINGS,
    Obj,
    make_deployment,
    make_finetune,
    make_mdep,
    make_pod,
    report,
    serving,
    status_of,
    view,
)

PUSHES = [
    pytest.param(set(), {"p1": report()}, make_pod(), id="holds it"),
    pytest.param({"p1"}, {}, make_pod(), id="never asked"),
    pytest.param({"p1"}, {"p1": "connection refused"}, make_pod(), id="did not answer"),
    pytest.param({"p1"}, {"p1": report("Loading", FORMER, ready=False)}, make_pod(), id="still loading"),
    pytest.param({"p1"}, {"p1": BARE_REPORT}, make_pod(), id="was told something else"),
    pytest.param(set(), {}, make_pod(ready=False), id="does not answer yet"),
    pytest.param(set(), {}, make_pod(state=BACKOFF), id="does not run"),
]


@pytest.mark.parametrize(("expected", "reports", "pod"), PUSHES)
def test_pods_are_told_that_can_listen_and_do_not_know(
    expected: set[str], reports: dict[str, ServerReport | str], pod: Obj
) -> None:
    observed = serving(make_mdep(MINE), make_finetune(), server_reports=reports, pods=(pod,))
    plan = reconcile(observed, SETTINGS, NOW)
    assert (set(plan.push.pods) if plan.push else set()) == expected
    assert plan.requeue_after == (SETTLE_SECONDS if expected else LOOK_AGAIN_SECONDS)
    if plan.push is not None:
        assert plan.push.pods == {"p1": "http://10.0.0.7:8000"}
        assert plan.push.token == adapter_token(KEY, observed.modeldeployment)
        assert plan.push.token not in repr(plan.push)


@pytest.mark.parametrize(
    ("url", "address"), [("http://10.0.0.7:8000", "10.0.0.7"), ("http://[fd00::7]:8000", "fd00::7")]
)
def test_pods_are_told_at_their_address_of_either_family(url: str, address: str) -> None:
    pod = make_pod()
    pod["status"]["podIP"] = address
    plan = reconcile(serving(make_mdep(MINE), make_finetune(), server_reports={}, pods=(pod,)), SETTINGS, NOW)
    assert plan.push is not None
    assert plan.push.pods == {"p1": url}


@pytest.mark.parametrize(
    ("words", "report"),
    [
        pytest.param("pod p1 fetches the base model.", RunReport(), id="nothing said yet"),
        pytest.param(
            "pod p1 fetches org/name: 3.1 of 14.5 GB (21 %), 4 of 9 files.",
            RunReport(stage="Fetching", stage_message="org/name: 3.1 of 14.5 GB (21 %), 4 of 9 files"),
            id="how much of it",
        ),
    ],
)
def test_what_is_fetched_of_a_hub_model_is_read_from_the_pods_log_and_told(words: str, report: RunReport) -> None:
    pod = make_pod(ready=False, state={"waiting": {"reason": "PodInitializing"}})
    pod["status"]["initContainerStatuses"] = [{"name": "fetch", "state": {"running": {}}}]
    mdep = make_mdep(baseModel="hf://org/name")
    other = {**pod, "metadata": {**pod["metadata"], "name": "p2"}}
    observed = view(mdep, deployment=make_deployment(2, 0), pods=(pod, other), report=report)
    plan = reconcile(observed, SETTINGS, NOW)
    assert plan.follow == (Follow("p1", "fetch", fetch_nonce(mdep)),)
    config = next(child for child in plan.apply if child["metadata"]["name"] == "coder-fetch")
    assert fetch_nonce(mdep) in config["data"]["fetch.json"]
    (ready,) = [entry for entry in status_of(plan).conditions if entry.type == "Ready"]
    assert ready.message.endswith(words)
    done = {**pod, "status": {**pod["status"], "initContainerStatuses": []}}
    assert reconcile(replace(observed, pods=(done,)), SETTINGS, NOW).follow == ()


def test_a_larger_rank_rolls_the_pods_and_says_so_and_a_smaller_one_does_not() -> None:
    plan = reconcile(serving(make_mdep(MINE), make_finetune(rank=60)), SETTINGS, NOW)
    assert "MaxLoraRankRaised" in {event.reason for event in plan.events}
    (workload,) = [child for child in plan.apply if child["kind"] == "Deployment"]
    arguments = workload["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--max-lora-rank") + 1] == "64"
    kept = reconcile(serving(make_mdep(), deployment=make_deployment(1, 1, rank=64)), SETTINGS, NOW)
    (workload,) = [child for child in kept.apply if child["kind"] == "Deployment"]
    assert "64" in workload["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "MaxLoraRankRaised" not in {event.reason for event in kept.events}


def test_a_rank_that_pods_found_too_high_rolls_them() -> None:
    by_uri = {"name": "mine", "uri": "pvc://codetune-artifacts/x"}
    entry = {"name": "mine", "phase": "Failed", "reason": "RankTooHigh", "message": "m", "rank": 200}
    told = ServerReport.model_validate({"ready": True, "adapters": [entry], "models": ["base"]})
    observed = serving(make_mdep(by_uri), deployment=make_deployment(1, 1, rank=64), server_reports={"p1": told})
    plan = reconcile(observed, SETTINGS, NOW)
    (event,) = [event for event in plan.events if event.reason == "MaxLoraRankRaised"]
    assert "'mine' needs --max-lora-rank 256" in event.message
    (ready,) = [entry for entry in status_of(plan).conditions if entry.type == "Ready"]
    assert "'mine': It has rank 200" in ready.message
