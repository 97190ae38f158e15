"""What is counted: by whose key, for which model, how much of it, and how it went."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from codetune_api.gateway import Upstream
from codetune_gateway.choosing import Choice
from codetune_gateway.counting import Tokens
from codetune_gateway.errors import Failure, TooManyRequests, UpstreamUnavailable
from codetune_gateway.exposing import expose
from codetune_gateway.measuring import LABELS, Meter, Passage
from codetune_gateway.settings import GatewaySettings
from mounted_secret import mount

if TYPE_CHECKING:
    from unit.gateway.conftest import Clock, FakeServer, Gateway

IDE, CI, SHARED = "sk-team-first", "sk-team-second", "sk-server-first"
EVENTS = [f'data: {{"choices": [{{"text": "{n}"}}]}}\n\n'.encode() for n in range(3)] + [b"data: [DONE]\n\n"]
HEADERS = {"Authorization": f"Bearer {IDE}"}
STREAM = {"model": "default", "prompt": "x", "stream": True}
BASE = {"team": "builders", "project": "", "deployment": "base", "model": "starcoder", "key": "ide"}
NOTHING = {"team": "builders", "project": "", "deployment": "", "model": "", "key": "ide"}


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    """Each of the team's keys has a name; one has two."""
    mount(settings.team_keys, {"ide": f"{IDE}\n", "ci.prod": f"{SHARED}\n{CI}\n", "later": f"{IDE}\n"})
    return settings


def read(gateway: "Gateway", name: str, **labels: str) -> float | None:
    """One figure; None where nothing like it was counted."""
    return gateway.meter.registry.get_sample_value(f"codetune_gateway_{name}", labels)


def series(gateway: "Gateway", name: str) -> list[dict[str, str]]:
    """The labels of all figures of one name."""
    samples = [sample for family in gateway.meter.registry.collect() for sample in family.samples]
    return [sample.labels for sample in samples if sample.name == f"codetune_gateway_{name}"]


WHO = [
    pytest.param(BASE, {}, {}, id="the default, without a name"),
    pytest.param({**BASE, "key": "ci.prod"}, {}, {"Authorization": f"Bearer {CI}"}, id="the second key of a file"),
    pytest.param(
        {**BASE, "project": "shop", "deployment": "tuned", "model": "shop-adapter"},
        {"model": "project/shop"},
        {},
        id="a project as the model",
    ),
    pytest.param(
        {**BASE, "project": "site", "model": "site-adapter"},
        {"model": "whatever"},
        {"X-Codetune-Project": "site"},
        id="a project in the header",
    ),
    pytest.param({**BASE, "model": "site-adapter"}, {"model": "site-adapter"}, {}, id="a model by its own name"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("expected", "content", "headers"), WHO)
async def test_who_uses_which_model_how_much(
    expected: dict[str, str],
    content: dict[str, str],
    headers: dict[str, str],
    stream: bool,
    gateway: "Gateway",
    servers: "dict[str, FakeServer]",
) -> None:
    for server in servers.values():
        server.usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    for _ in range(2):
        assert (await gateway.complete({**content, "stream": stream}, **headers)).status == 200
    assert series(gateway, "requests_total") == [{**expected, "code": "200"}]
    assert read(gateway, "requests_total", **expected, code="200") == 2
    assert read(gateway, "prompt_tokens_total", **expected) == 60
    assert read(gateway, "completion_tokens_total", **expected) == 8
    assert read(gateway, "requests_in_flight", **expected) == 0


REFUSED = [
    pytest.param("401", {**NOTHING, "key": ""}, {}, {"Authorization": "Bearer sk-unknown-key"}, id="an unknown key"),
    pytest.param("401", {**NOTHING, "key": ""}, {}, {"Authorization": ""}, id="no key"),
    pytest.param("404", NOTHING, {"model": "made-up"}, {}, id="an unknown model"),
    pytest.param("404", NOTHING, {"model": "project/made-up"}, {}, id="an unknown project"),
    pytest.param("404", NOTHING, {}, {"X-Codetune-Project": "made-up"}, id="an unknown project in the header"),
    pytest.param("400", NOTHING, [], {}, id="no object"),
]


@pytest.mark.parametrize(("code", "expected", "content", "headers"), REFUSED)
async def test_what_a_client_makes_up_is_no_label(
    code: str, expected: dict[str, str], content: object, headers: dict[str, str], gateway: "Gateway"
) -> None:
    assert str((await gateway.complete(content, **headers)).status) == code
    assert series(gateway, "requests_total") == [{**expected, "code": code}]
    assert not series(gateway, "prompt_tokens_total")
    assert not series(gateway, "answer_seconds_count")


async def test_other_routes_are_not_counted(gateway: "Gateway") -> None:
    for path in ("/v1/models", "/healthz", "/made-up"):
        await gateway.call("GET", path)
    await gateway.call("GET", "/v1/models", Authorization="")
    assert not series(gateway, "requests_total")
    await gateway.call("GET", "/v1/completions")
    assert series(gateway, "requests_total") == [{**NOTHING, "code": "405"}]


ASKED = [
    pytest.param(b"".join(EVENTS), None, id="not asked for: taken out"),
    pytest.param(b"".join(EVENTS), {"include_usage": False}, id="not wanted: taken out"),
    pytest.param(
        b"".join([*EVENTS[:-1], b'data: {"choices": [], "usage": {"prompt_tokens": 3}}\n\n', EVENTS[-1]]),
        {"include_usage": True},
        id="asked for: passed on",
    ),
]


@pytest.mark.parametrize(("expected", "options"), ASKED)
async def test_a_client_sees_the_usage_of_a_stream_if_it_asks_for_it(
    expected: bytes, options: object, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    servers["base"].usage = {"prompt_tokens": 3}
    assert (await gateway.complete({**STREAM, "stream_options": options})).body == expected
    assert read(gateway, "prompt_tokens_total", **BASE) == 3


async def test_time_is_taken_to_the_first_byte_and_to_the_end(
    gateway: "Gateway", servers: "dict[str, FakeServer]", clock: "Clock"
) -> None:
    servers["base"].may_go_on.clear()
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer:
        await answer.content.readany()
        assert read(gateway, "requests_in_flight", **BASE) == 1
        clock.now += 40
        servers["base"].may_go_on.set()
        await answer.read()
    await until_over(gateway)
    assert read(gateway, "first_byte_seconds_sum", **BASE) == 0
    assert read(gateway, "answer_seconds_sum", **BASE) == 40
    assert read(gateway, "answer_seconds_bucket", **BASE, le="60.0") == 1
    assert read(gateway, "answer_seconds_bucket", **BASE, le="30.0") == 0


async def until_over(gateway: "Gateway") -> None:
    async with asyncio.timeout(5):
        while read(gateway, "requests_in_flight", **BASE) != 0:
            await asyncio.sleep(0.01)


async def test_an_answer_that_breaks_off_is_counted_as_that(
    gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    servers["base"].breaks_off_after = 1
    with pytest.raises(aiohttp.ClientPayloadError):
        await gateway.complete(STREAM)
    assert read(gateway, "broken_answers_total", **BASE) == 1
    assert read(gateway, "requests_total", **BASE, code="200") == 1
    assert not series(gateway, "answer_seconds_count")


async def test_a_client_that_hangs_up_is_counted_as_that(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    servers["base"].may_go_on.clear()
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer:
        await answer.content.readany()
        answer.close()
    await until_over(gateway)
    assert series(gateway, "requests_total") == [{**BASE, "code": "499"}]
    assert not series(gateway, "answer_seconds_count")
    assert not series(gateway, "broken_answers_total")


@pytest.mark.parametrize(
    ("reason", "code", "model"),
    [
        pytest.param("unreachable", "503", "default", id="it is away"),
        pytest.param("not_admitted", "502", "project/shop", id="it refuses the gateway"),
        pytest.param("no_endpoint", "503", "project/gone", id="it is not there"),
    ],
)
async def test_a_server_that_fails_is_counted_by_the_kind_of_failure(
    reason: str, code: str, model: str, gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    await servers["base"].stop()
    servers["tuned"].status = 401
    assert str((await gateway.complete({"model": model})).status) == code
    (failed,) = series(gateway, "upstream_failures_total")
    (request,) = series(gateway, "requests_total")
    assert (failed.pop("reason"), request.pop("code")) == (reason, code)
    assert failed == request
    assert failed["deployment"] in ("base", "tuned", "nowhere")


async def test_a_refusal_of_the_server_counts_by_its_status(
    gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    servers["base"].status, servers["base"].usage = 429, {"prompt_tokens": 3}
    await gateway.complete({})
    assert series(gateway, "requests_total") == [{**BASE, "code": "429"}]
    for name in (
        "limited_requests_total",
        "upstream_failures_total",
        "prompt_tokens_total",
        "first_byte_seconds_count",
    ):
        assert not series(gateway, name), name


class TestLimited:
    """One request a minute."""

    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        limited = settings.config.model_copy(update={"requests_per_minute": 1.0})
        return GatewaySettings(limited, settings.team_keys, settings.server_keys)

    async def test_what_the_limit_turns_away_is_counted_by_its_key(self, gateway: "Gateway") -> None:
        assert [(await gateway.complete({})).status for _ in range(3)] == [200, 429, 429]
        assert read(gateway, "limited_requests_total", **NOTHING) == 2
        assert read(gateway, "requests_total", **NOTHING, code="429") == 2


@pytest.fixture
async def metrics(gateway: "Gateway") -> AsyncIterator[str]:
    """Where the gateway's metrics are."""
    async with expose(gateway.meter.registry, gateway.timing, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def test_metrics_are_told_without_a_key_on_a_port_that_has_nothing_else(gateway: "Gateway", metrics: str) -> None:
    await gateway.complete({})
    async with gateway.requests.get(f"{metrics}/metrics") as answer:
        text = await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
    labels = ",".join(f'{name}="{value}"' for name, value in sorted({**BASE, "code": "200"}.items()))
    assert f"codetune_gateway_requests_total{{{labels}}} 1.0" in text
    assert "sk-" not in text
    for path in ("/v1/models", "/v1/completions", "/healthz", "/"):
        async with gateway.requests.get(metrics + path) as answer:
            assert answer.status == 404
    assert (await gateway.call("GET", "/metrics")).status == 404


TEAMS = Path(__file__).parents[3] / "docs" / "teams.md"
ROW = re.compile(r"^\| `(codetune_gateway_\w+)` \| (\w+) \| (.*?) \|", re.MULTILINE)


def test_the_documentation_tells_every_metric_with_its_labels_and_no_other() -> None:
    told = {name: (kind, {*re.findall(r"`(\w+)`", more)}) for name, kind, more in ROW.findall(TEAMS.read_text())}
    meter = Meter("builders")
    for error in (TooManyRequests("…", 1), UpstreamUnavailable("…", "base", Failure.SILENT, "…"), None):
        passage = Passage(meter)
        passage.choose(Choice(Upstream(url=None, model="starcoder", deployment="base")))
        passage.begin()
        passage.count(Tokens(1, 1))
        passage.note(error) if error else passage.break_off()
        passage.end(200)
    found = {}
    for family in meter.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels >= {*LABELS}, family.name
        found[family.name + "_total" * (family.type == "counter")] = (family.type, labels - {*LABELS, "le"})
    assert told == found
    assert all(f"`{label}`" in TEAMS.read_text() for label in LABELS)


def test_the_documentation_tells_every_kind_of_failure() -> None:
    (row,) = [line for line in TEAMS.read_text().splitlines() if "`codetune_gateway_upstream_failures_total`" in line]
    assert {*re.findall(r"`(\w+)`", row)} - {"codetune_gateway_upstream_failures_total", "reason"} == {*Failure}
