"""`python -m codetune_gateway`: its environment, and its end."""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import pytest
from codetune_api.contracts import ENV_CONFIG
from codetune_api.gateway import ENV_SERVER_KEYS, ENV_TEAM_KEYS, METRICS_PORT, GatewayConfig
from codetune_gateway.settings import ENV_BIND_HOST, PORT, GatewaySettings

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer

HEADERS = {"Authorization": "Bearer sk-team-first"}
EVENTS = b"".join(f'data: {{"choices": [{{"text": "{n}"}}]}}\n\n'.encode() for n in range(3)) + b"data: [DONE]\n\n"
numbers = itertools.count(1)


@pytest.fixture
def environment(settings: GatewaySettings, tmp_path: Path) -> dict[str, str]:
    """As the operator sets it."""
    (tmp_path / "config.json").write_text(settings.config.model_dump_json(by_alias=True))
    return {
        ENV_CONFIG: str(tmp_path / "config.json"),
        ENV_TEAM_KEYS: str(settings.team_keys),
        ENV_SERVER_KEYS: str(settings.server_keys),
        ENV_BIND_HOST: f"127.{os.getpid() % 250 + 2}.{os.getpid() // 250 % 250}.{next(numbers)}",
    }


def test_the_environment_says_everything(
    environment: dict[str, str], settings: GatewaySettings, config: GatewayConfig
) -> None:
    read = GatewaySettings.from_environment(environment)
    assert (read.config, read.team_keys, read.server_keys) == (config, settings.team_keys, settings.server_keys)
    assert (read.host, read.port) == (environment[ENV_BIND_HOST], 8000)
    less = {name: environment[name] for name in (ENV_CONFIG, ENV_TEAM_KEYS)}
    assert (GatewaySettings.from_environment(less).host, GatewaySettings.from_environment(less).server_keys) == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("said", "lacking", "text"),
    [
        pytest.param(f"not set: {ENV_CONFIG};", ENV_CONFIG, None, id="no configuration"),
        pytest.param(f"not set: {ENV_TEAM_KEYS};", ENV_TEAM_KEYS, None, id="no team keys"),
        pytest.param("which can't be read: No such file", "", None, id="no file"),
        pytest.param("which is no gateway configuration: the file: Invalid JSON", "", "{", id="no JSON"),
        pytest.param("configuration: team: Field required", "", "{}", id="no team"),
        pytest.param("extra", "", '{"team": "x", "more": 1}', id="more than it knows"),
    ],
)
async def test_what_it_is_told_wrong_it_says_in_one_line(
    said: str, lacking: str, text: str | None, environment: dict[str, str]
) -> None:
    environment.pop(lacking, None)
    if not lacking:
        Path(environment[ENV_CONFIG]).unlink()
    if text is not None:
        Path(environment[ENV_CONFIG]).write_text(text)
    process = await start(environment)
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, output) == (64, b"")
    (line,) = errors.decode().splitlines()
    assert line.startswith("codetune-gateway: ")
    assert said.lower() in line.lower()
    assert "CODETUNE_" in line


async def start(environment: dict[str, str], *command: str) -> asyncio.subprocess.Process:
    """The gateway as its container starts it, or as another command does."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *(command or ("-m", "codetune_gateway")),
        env=kept | environment,
        stdout=pipe,
        stderr=pipe,
    )


@dataclass
class Running:
    """A gateway in its own process."""

    process: asyncio.subprocess.Process
    url: str
    requests: aiohttp.ClientSession

    async def ready(self) -> int:
        """Status of the readiness probe."""
        async with self.requests.get(f"{self.url}/readyz") as answer:
            return answer.status

    async def listens(self) -> bool:
        """Whether it takes new connections."""
        try:
            return bool(await self.ready())
        except aiohttp.ClientConnectionError:
            return False


@pytest.fixture
def command() -> tuple[str, ...]:
    """None but its own."""
    return ()


@pytest.fixture
async def running(environment: dict[str, str], command: tuple[str, ...]) -> AsyncIterator[Running]:
    """One that is ready."""
    process = await start(environment, *command)
    async with aiohttp.ClientSession(headers=HEADERS) as requests:
        gateway = Running(process, f"http://{environment[ENV_BIND_HOST]}:{PORT}", requests)
        async with asyncio.timeout(30):
            while not await gateway.listens():
                assert process.returncode is None
                await asyncio.sleep(0.05)
        assert await gateway.ready() == 200
        yield gateway
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_a_gateway_that_is_to_end_ends_what_is_under_way_and_takes_no_more(
    running: Running, servers: "dict[str, FakeServer]"
) -> None:
    base = servers["base"]
    base.may_go_on.clear()
    models, completions = f"{running.url}/v1/models", f"{running.url}/v1/completions"
    async with AsyncExitStack() as stack:
        # Connections that are kept: the first one is used late, the second one never, and holds nothing up.
        kept, idle = [await stack.enter_async_context(aiohttp.ClientSession(headers=HEADERS)) for _ in range(2)]
        for session in (kept, idle):
            async with session.get(models) as answer:
                assert answer.status == 200
        answer = await stack.enter_async_context(running.requests.post(completions, json={"stream": True}))
        got = await answer.content.readany()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(2):
            while await running.ready() != 503:
                await asyncio.sleep(0.01)
        # Proxies that have not heard of it yet still send requests, over new connections too.
        async with running.requests.post(completions, json={}) as late:
            assert (late.status, late.headers["Connection"]) == (200, "close")
        async with asyncio.timeout(10):
            while await running.listens():
                await asyncio.sleep(0.1)
        async with kept.get(models) as late:
            assert (late.status, late.headers["Connection"]) == (200, "close")
        assert running.process.returncode is None
        base.may_go_on.set()
        assert got + await answer.read() == EVENTS
        output, errors = await asyncio.wait_for(running.process.communicate(), 5)
    assert running.process.returncode == 0
    assert errors == b""
    assert b"ERROR" not in output
    assert b"sk-" not in output


async def test_metrics_are_told_apart_from_completions_and_until_the_end(
    running: Running, servers: "dict[str, FakeServer]"
) -> None:
    metrics = f"{running.url.removesuffix(str(PORT))}{METRICS_PORT}/metrics"
    servers["base"].may_go_on.clear()
    async with running.requests.post(f"{running.url}/v1/completions", json={"stream": True}) as answer:
        await answer.content.readany()
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while await running.listens():
                await asyncio.sleep(0.1)
        async with aiohttp.request("GET", metrics) as told:
            assert (told.status, "in_flight{" in await told.text()) == (200, True)
            assert "_created" not in await told.text()
        servers["base"].may_go_on.set()
        await answer.read()
    _, errors = await asyncio.wait_for(running.process.communicate(), 5)
    assert (running.process.returncode, errors) == (0, b"")


async def test_one_without_requests_ends_after_a_moment(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    _, errors = await asyncio.wait_for(running.process.communicate(), 10)
    assert (running.process.returncode, errors) == (0, b"")


IMPATIENT = """
import asyncio
from codetune_gateway.app import build_app
from codetune_gateway.ending import Traffic, serve
from codetune_gateway.measuring import Meter
from codetune_gateway.settings import GatewaySettings, Timing

async def main():
    settings, traffic, timing = GatewaySettings.from_environment(), Traffic(), Timing(settle=0, finish=0.5, close=0.1)
    app = build_app(settings, traffic, timing, Meter(settings.config.team))
    await serve(app, traffic, timing, settings.host, settings.port)

asyncio.run(main())
"""


class TestImpatient:
    """With half a second, not 100, for what is under way."""

    @pytest.fixture
    def command(self) -> tuple[str, ...]:
        return "-c", IMPATIENT

    async def test_an_answer_without_an_end_is_broken_off(
        self, running: Running, servers: "dict[str, FakeServer]"
    ) -> None:
        servers["base"].may_go_on.clear()
        async with running.requests.post(f"{running.url}/v1/completions", json={"stream": True}) as answer:
            await answer.content.readany()
            running.process.send_signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        await asyncio.wait_for(servers["base"].was_left.wait(), 2)
        _, errors = await asyncio.wait_for(running.process.communicate(), 5)
        assert (running.process.returncode, errors) == (0, b"")
