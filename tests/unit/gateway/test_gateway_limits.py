"""The limit of requests: a minute's worth at once, then evenly, and told by OpenAI's 429."""

from typing import TYPE_CHECKING

import pytest
from codetune_api.gateway import GatewayConfig
from codetune_gateway.limiting import TokenBucket
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.gateway.conftest import Clock, FakeServer, Gateway


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("at_once", "wait", "per_minute"),
    [
        pytest.param(1, 60.0, 1, id="one a minute"),
        pytest.param(60, 1.0, 60, id="sixty a minute"),
        pytest.param(1, 120.0, 0.5, id="a share of less than one: one at once, the next in two minutes"),
        pytest.param(2, 24.0, 2.5, id="no whole number"),
    ],
)
def test_a_minutes_worth_is_admitted_at_once(at_once: int, wait: float, per_minute: float) -> None:
    time = Time()
    bucket = TokenBucket(per_minute, time)
    assert [bucket.take() for _ in range(at_once)] == [0.0] * at_once
    left = per_minute - at_once if per_minute > 1 else 0
    first = bucket.take()
    assert first == pytest.approx(wait * (1 - left))
    time.now += first
    assert bucket.take() == 0.0


def test_a_long_rest_saves_no_more_than_a_minutes_worth() -> None:
    time = Time()
    bucket = TokenBucket(3, time)
    time.now += 86400
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, pytest.approx(20)]


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 120), max_size=200))
def test_no_more_is_admitted_than_the_limit_and_who_waits_as_told_is(per_minute: float, pauses: list[float]) -> None:
    time = Time()
    bucket = TokenBucket(per_minute, time)
    admitted = 0
    for pause in pauses:
        time.now += pause
        wait = bucket.take()
        admitted += wait == 0
        assert admitted <= max(1, per_minute) + time.now * per_minute / 60 + 1e-6
    time.now += bucket.take()
    time.now += (again := bucket.take())
    assert again == 0 or bucket.take() == 0


@pytest.fixture
def config(config: GatewayConfig) -> GatewayConfig:
    """Two requests a minute."""
    return config.model_copy(update={"requests_per_minute": 2.0})


async def test_over_the_limit_a_client_is_told_when_to_come_back(gateway: "Gateway", clock: "Clock") -> None:
    statuses = [(await gateway.complete({"prompt": "x"})).status for _ in range(2)]
    assert statuses == [200, 200]
    clock.now += 0.5
    refused = await gateway.complete({"prompt": "x"})
    assert (refused.status, refused.headers["Retry-After"]) == (429, "30")  # 29.5, rounded up
    assert (refused.error["type"], refused.error["code"]) == ("requests", "rate_limit_exceeded")
    assert "requestsPerMinute" in refused.error["message"]
    clock.now += 29.5
    assert (await gateway.complete({"prompt": "x"}, "/v1/chat/completions")).status == 200
    assert (await gateway.complete({"prompt": "x"})).status == 429


async def test_only_completions_of_the_team_count(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    for _ in range(3):
        assert (await gateway.call("GET", "/v1/models")).status == 200
        assert (await gateway.call("GET", "/readyz")).status == 200
        assert (await gateway.complete({}, Authorization="Bearer wrong")).status == 401
    assert (await gateway.complete({})).status == 200
    assert len(servers["base"].seen) == 1
