"""A gateway and the servers behind it on loopback, spoken to over real HTTP."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from codetune_api.gateway import GatewayConfig, Upstream
from codetune_gateway.app import build_app
from codetune_gateway.ending import Traffic
from codetune_gateway.listening import listen, set_up
from codetune_gateway.measuring import Meter
from codetune_gateway.settings import GatewaySettings, Timing
from mounted_secret import mount
from yarl import URL

KEY, OTHER = "sk-team-first", "sk-team-second"
SERVER_KEY = "sk-server-first"
SECRETS = (KEY, OTHER, SERVER_KEY)
EVENTS = [f'data: {{"choices": [{{"text": "{n}"}}]}}\n\n'.encode() for n in range(3)] + [b"data: [DONE]\n\n"]


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class Seen:
    """A request as a server got it."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def model(self) -> str:
        """What it asks for."""
        model: str = json.loads(self.body)["model"]
        return model


@dataclass
class FakeServer:
    """The server of a ModelDeployment, as far as the gateway can tell."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    """What it tells of the tokens of a whole answer; and of a stream's, if it is asked to, before the end."""
    breaks_off_after: int | None = None
    """A stream is cut after so many events."""
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream waits for this after its first event."""
    has_begun: asyncio.Event = field(default_factory=asyncio.Event)
    was_left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client hung up in the middle."""
    runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        app = web.Application(client_max_size=100 << 20)
        app.router.add_route("*", "/{rest:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no more."""
        if self.runner:
            await self.runner.cleanup()
            self.runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(Seen(request.raw_path, request.headers.copy(), body))
        if self.status == 200 and json.loads(body).get("stream"):
            return await self._stream(request, json.loads(body))
        answer = {"object": "text_completion", "model": json.loads(body)["model"], "choices": [], "usage": self.usage}
        return web.json_response(answer, status=self.status, headers=self.headers)

    async def _stream(self, request: web.Request, content: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self.headers})
        await response.prepare(request)
        self.has_begun.set()
        try:
            for number, event in enumerate(self._list_events(content)):
                if number == self.breaks_off_after:
                    assert request.transport
                    request.transport.close()
                    return response
                await response.write(event)
                await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.was_left.set()
            raise
        return response

    def _list_events(self, content: dict[str, Any]) -> list[bytes]:
        if self.usage is None or not (content.get("stream_options") or {}).get("include_usage"):
            return EVENTS
        return [*EVENTS[:-1], b"data: %b\n\n" % json.dumps({"choices": [], "usage": self.usage}).encode(), EVENTS[-1]]


@dataclass(frozen=True)
class Reply:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """As JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@dataclass
class Gateway:
    """A running gateway and a client of it."""

    url: str
    settings: GatewaySettings
    traffic: Traffic
    timing: Timing
    meter: Meter
    requests: aiohttp.ClientSession
    replies: list[Reply] = field(default_factory=list)

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request with a team's key; other headers by name, with _ for -."""
        sent = bearer(KEY) | {"Content-Type": "application/json"} | {n.replace("_", "-"): v for n, v in headers.items()}
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        async with self.requests.request(method, URL(self.url + path, encoded=True), data=data, headers=sent) as answer:
            reply = Reply(answer.status, await answer.read(), answer.headers.copy())
        self.replies.append(reply)
        return reply

    async def complete(self, content: Any, path: str = "/v1/completions", **headers: str) -> Reply:
        """Ask for a completion."""
        return await self.call("POST", path, json.dumps(content).encode(), **headers)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """What the gateway's limit goes by."""
    return Clock()


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, FakeServer]]:
    """Two ModelDeployments: `base`, and `tuned`, which asks for a key."""
    made = {name: FakeServer() for name in ("base", "tuned")}
    for server in made.values():
        server.may_go_on.set()
        await server.start()
    yield made
    for server in made.values():
        await server.stop()


@pytest.fixture
def config(servers: dict[str, FakeServer]) -> GatewayConfig:
    """What the team has; a test may have another one."""
    tuned = Upstream(url=servers["tuned"].url, model="shop-adapter", deployment="tuned", keys="tuned-keys")
    return GatewayConfig(
        team="builders",
        default=Upstream(url=servers["base"].url, model="starcoder", deployment="base"),
        projects={
            "shop": tuned,
            "site": Upstream(url=servers["base"].url, model="site-adapter", deployment="base"),
            "gone": Upstream(url=None, model="", deployment="nowhere"),
        },
    )


@pytest.fixture
def settings(config: GatewayConfig, tmp_path: Path) -> GatewaySettings:
    """With the Secrets of the team and of `tuned` mounted."""
    mount(tmp_path / "team-keys", {"keys": f"{KEY}\n{OTHER}\n"})
    mount(tmp_path / "server-keys/tuned-keys", {"b": "sk-server-second\n", "a": f"\n{SERVER_KEY}\nsk-unused"})
    return GatewaySettings(config, tmp_path / "team-keys", tmp_path / "server-keys")


@pytest.fixture
def timing() -> Timing:
    """How long the gateway waits for what; a test may have another one."""
    return Timing(connect=1.0, read=30.0, retries=(0.05, 0.1, 0.2, 0.4), close=0.5)


@pytest.fixture
async def gateway(
    settings: GatewaySettings, timing: Timing, clock: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Gateway]:
    """A gateway; after each test, nothing that it said or logged contains a key."""
    caplog.set_level(logging.INFO)
    traffic, meter = Traffic(), Meter(settings.config.team, clock)
    runner = await set_up(build_app(settings, traffic, timing, meter), timing)
    listening = await listen(runner, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as requests:
        running = Gateway(url, settings, traffic, timing, meter, requests)
        yield running
    listening.close()
    await runner.cleanup()
    said = caplog.text + "".join(f"{reply.headers}{reply.body!r}" for reply in running.replies)
    assert not [secret for secret in SECRETS if secret in said]
