"""What becomes of adapters, by what the pods of their deployment say."""

import pytest
from codetune_api.contracts import AdapterReport, DesiredAdapter, DesiredAdapters, ServerReport
from codetune_operator.reconcile.modeldeployment.adapters import ResolvedAdapter, max_lora_rank
from codetune_operator.reconcile.modeldeployment.adapterstates import adapter_states, is_settled, learn_ranks

D1, D2, D3 = ("sha256:" + digit * 64 for digit in "123")

ONE = ResolvedAdapter(name="a", rank=16, desired=DesiredAdapter(name="a", digest=D1, path="x"))
LOOSE = ResolvedAdapter(name="a", rank=16, desired=DesiredAdapter(name="a", path="x"))


def answer(
    phase: str, digest: str | None, desired: str | None = D1, reason: str = "", ready: bool = True
) -> ServerReport:
    entry = {"name": "a", "digest": digest, "desiredDigest": desired, "phase": phase, "reason": reason, "message": "m"}
    return ServerReport(ready=ready, adapters=[AdapterReport.model_validate(entry)], models=["base"])


def too_high(rank: int) -> ServerReport:
    entry = {"name": "a", "desiredDigest": D1, "phase": "Failed", "reason": "RankTooHigh", "message": "m", "rank": rank}
    return ServerReport(ready=True, adapters=[AdapterReport.model_validate(entry)], models=["base"])


STATES = [
    pytest.param(("Loading", 0, ""), ONE, {}, 1, id="no pod yet"),
    pytest.param(("Loading", 0, ""), ONE, {"p1": "connection refused"}, 1, id="pod does not answer"),
    pytest.param(("Ready", 1, ""), ONE, {"p1": answer("Ready", D1)}, 1, id="served"),
    pytest.param(("Ready", 1, ""), LOOSE, {"p1": answer("Ready", D3, None)}, 1, id="served, without a digest asked"),
    pytest.param(("Loading", 1, ""), ONE, {"p1": answer("Ready", D1), "p2": "starting"}, 2, id="on one of two"),
    pytest.param(("Loading", 0, ""), ONE, {"p1": answer("Ready", D2, D2)}, 1, id="the former version is served"),
    pytest.param(
        ("Failed", 0, "DigestMismatch"), ONE, {"p1": answer("Failed", D2, D1, "DigestMismatch")}, 1, id="refused"
    ),
    pytest.param(("Loading", 0, ""), ONE, {"p1": answer("Failed", None, D2, "X")}, 1, id="another one was refused"),
    pytest.param(("Loading", 0, "RankRaised"), ONE, {"p1": too_high(256)}, 1, id="its rank rolls the pods"),
    pytest.param(
        ("Loading", 1, "RankRaised"), ONE, {"p1": too_high(256), "p2": answer("Ready", D1)}, 2, id="one is rolled"
    ),
    pytest.param(("Failed", 0, "RankTooHigh"), ONE, {"p1": too_high(513)}, 1, id="no vLLM takes its rank"),
    pytest.param(("Pending", 0, ""), ONE, {}, 0, id="scaled to zero"),
]


@pytest.mark.parametrize(("expected", "adapter", "reports", "replicas"), STATES)
def test_the_state_of_an_adapter_follows_from_its_pods(
    expected: tuple[str, int, str], adapter: ResolvedAdapter, reports: dict[str, ServerReport | str], replicas: int
) -> None:
    (state,) = adapter_states([adapter], reports, replicas=replicas)
    assert (state.phase, state.ready_replicas, state.reason) == expected


@pytest.mark.parametrize(
    ("expected", "report"),
    [
        pytest.param(False, None, id="nothing known"),
        pytest.param(False, "connection refused", id="no answer"),
        pytest.param(True, answer("Ready", D1), id="holds it"),
        pytest.param(True, answer("Failed", None), id="refused it: telling again changes nothing"),
        pytest.param(False, answer("Ready", D2, D2), id="holds another version"),
        pytest.param(False, answer("Loading", None, ready=False), id="still loading"),
        pytest.param(False, ServerReport(ready=True, adapters=[], models=[]), id="was told of none"),
    ],
)
def test_a_pod_is_told_until_it_has_settled(expected: bool, report: ServerReport | str | None) -> None:
    assert is_settled(report, DesiredAdapters(adapters=[DesiredAdapter(name="a", digest=D1, path="x")])) is expected


@pytest.mark.parametrize(
    ("expected", "reports"),
    [
        pytest.param(16, {}, id="nothing told"),
        pytest.param(16, {"p1": "connection refused"}, id="no answer"),
        pytest.param(128, {"p1": too_high(100), "p2": "starting"}, id="what a pod has read"),
        pytest.param(16, {"p1": too_high(1000)}, id="more than vLLM takes"),
    ],
)
def test_the_rank_of_an_adapter_by_uri_is_learnt_from_the_pods(
    expected: int, reports: dict[str, ServerReport | str]
) -> None:
    assert max_lora_rank(learn_ranks([ONE], reports)) == expected
