"""Servers that are away: connecting is tried again where nothing was sent, and no completion is computed twice."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codetune_api.gateway import GatewayConfig
from codetune_gateway.settings import Timing

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer, Gateway

WHOLE, SILENT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 "


async def test_a_server_that_comes_back_in_time_serves(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    base = servers["base"]
    await base.stop()
    asking = asyncio.create_task(gateway.complete({}))
    await asyncio.sleep(0.2)
    assert not asking.done()
    await base.start()
    assert (await asking).status == 200
    assert len(base.seen) == 1


async def test_a_server_that_does_not_is_told_about(
    gateway: "Gateway", servers: "dict[str, FakeServer]", caplog: pytest.LogCaptureFixture
) -> None:
    await servers["base"].stop()
    answer = await gateway.complete({})
    assert (answer.status, answer.error["code"], answer.headers["Retry-After"]) == (503, "model_unavailable", "5")
    assert "`kubectl get mdep base`" in answer.error["message"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("ModelDeployment base: can't connect")


class TestWithoutName:
    """The Service of the ModelDeployment is gone."""

    @pytest.fixture
    def config(self, config: GatewayConfig) -> GatewayConfig:
        assert config.default
        lost = config.default.model_copy(update={"url": "http://no-such-service.invalid:8000"})
        return config.model_copy(update={"default": lost})

    async def test_it_is_told_about(self, gateway: "Gateway", caplog: pytest.LogCaptureFixture) -> None:
        answer = await gateway.complete({})
        assert (answer.status, answer.error["code"]) == (503, "model_unavailable")
        assert "ModelDeployment base: its name is not known" in caplog.messages


@asynccontextmanager
async def behaving(port: int, behave: Callable[[int, bytes], bytes], at_once: int = 1) -> AsyncIterator[list[int]]:
    """A server that answers the nth request over a connection with given bytes, and hangs up after any other than
    a whole answer or none. It begins when `at_once` requests have come."""
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while True:
            try:
                asked = await reader.readuntil(b"}")
            except asyncio.IncompleteReadError:
                break
            number += 1
            requests.append(number)
            while len(requests) < at_once:
                await asyncio.sleep(0.01)
            said = behave(number, asked)
            writer.write(said)
            if said not in (WHOLE, SILENT):
                break
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    yield requests
    listening.close()
    await listening.wait_closed()


@pytest.mark.parametrize(
    ("statuses", "requests", "behave"),
    [
        pytest.param([200, 200], [1, 2], lambda n, _: WHOLE, id="a connection is kept"),
        pytest.param(
            [200, 200], [1, 2, 1], lambda n, _: WHOLE if n == 1 else b"", id="a kept one that was closed: once more"
        ),
        pytest.param([502, 502], [1, 1], lambda n, _: b"", id="a new one that is closed: the request may have done it"),
        pytest.param([502, 502], [1, 1], lambda n, _: b"SSH-2.0\r\n", id="no HTTP"),
        pytest.param([502, 502], [1, 1], lambda n, _: b"HTTP/1.1 200 OK\r\nConte", id="half a head"),
    ],
)
async def test_no_server_is_asked_again_that_may_have_begun(
    statuses: list[int],
    requests: list[int],
    behave: Callable[[int, bytes], bytes],
    gateway: "Gateway",
    servers: "dict[str, FakeServer]",
) -> None:
    await servers["base"].stop()
    async with behaving(servers["base"].port, behave) as seen:
        answers = [await gateway.complete({"model": "default"}) for _ in range(2)]
    assert ([answer.status for answer in answers], seen) == (statuses, requests)


async def test_a_request_that_finds_two_kept_connections_closed_is_given_up(
    gateway: "Gateway", servers: "dict[str, FakeServer]"
) -> None:
    """It may be what the server dies of."""
    await servers["base"].stop()
    async with behaving(servers["base"].port, lambda n, _: WHOLE if n == 1 else b"", at_once=2) as seen:
        answers = await asyncio.gather(*(gateway.complete({"model": "default"}) for _ in range(2)))
        answers.append(await gateway.complete({"model": "default"}))
    assert ([answer.status for answer in answers], seen) == ([200, 200, 502], [1, 1, 2, 2])
    assert answers[-1].error["code"] == "model_failed"
    assert "it hung up" in answers[-1].error["message"]


class TestSilence:
    """A second of it, not 10 minutes, is too long."""

    @pytest.fixture
    def timing(self, timing: Timing) -> Timing:
        return replace(timing, read=1.0)

    async def test_a_server_that_never_answers_is_given_up(
        self, gateway: "Gateway", servers: "dict[str, FakeServer]"
    ) -> None:
        await servers["base"].stop()
        async with behaving(servers["base"].port, lambda n, _: SILENT) as seen:
            answer = await gateway.complete({"model": "default"})
        assert (answer.status, seen) == (502, [1])
        assert "it said nothing for too long" in answer.error["message"]


async def test_a_server_that_takes_no_connection_is_given_up(
    gateway: "Gateway", servers: "dict[str, FakeServer]", caplog: pytest.LogCaptureFixture
) -> None:
    """After 5 seconds; after one in this test."""
    await servers["base"].stop()
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind(("127.0.0.1", servers["base"].port))
        full.listen(0)
        for _ in range(3):  # what comes after these waits at the door
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        answer = await gateway.complete({})
    assert (answer.status, answer.error["code"]) == (503, "model_unavailable")
    assert "ModelDeployment base: can't connect: no answer in time" in caplog.messages
