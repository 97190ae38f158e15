"""Streams: each event as it comes, hung up where the client hangs up, broken where the server breaks off."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
from codetune_gateway.settings import Timing

if TYPE_CHECKING:
    from unit.gateway.conftest import FakeServer, Gateway

STREAM = {"model": "default", "prompt": "x", "stream": True}
HEADERS = {"Authorization": "Bearer sk-team-first"}
EVENTS = [f'data: {{"choices": [{{"text": "{n}"}}]}}\n\n'.encode() for n in range(3)] + [b"data: [DONE]\n\n"]


@pytest.fixture
def server(servers: "dict[str, FakeServer]") -> "FakeServer":
    """The default's server; its streams wait after the first event."""
    servers["base"].may_go_on.clear()
    return servers["base"]


async def test_events_arrive_while_the_server_still_writes(gateway: "Gateway", server: "FakeServer") -> None:
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
        assert await answer.content.readany() == EVENTS[0]
        assert not server.may_go_on.is_set()
        server.may_go_on.set()
        assert await answer.content.read() == b"".join(EVENTS[1:])


async def test_a_hundred_streams_run_at_once(gateway: "Gateway", server: "FakeServer") -> None:
    answers = [asyncio.create_task(gateway.complete(STREAM)) for _ in range(100)]
    async with asyncio.timeout(15):
        while len(server.seen) < 100:
            await asyncio.sleep(0.01)
    server.may_go_on.set()
    assert {answer.body for answer in await asyncio.gather(*answers)} == {b"".join(EVENTS)}


async def test_a_client_that_hangs_up_is_heard_of_by_the_server(gateway: "Gateway", server: "FakeServer") -> None:
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer:
        await answer.content.readany()
        answer.close()
    await asyncio.wait_for(server.was_left.wait(), 5)
    assert not server.may_go_on.is_set()
    server.may_go_on.set()
    assert (await gateway.complete(STREAM)).status == 200


async def test_a_client_that_hangs_up_before_the_answer_is_too(
    gateway: "Gateway", silent: "tuple[asyncio.Event, asyncio.Event]"
) -> None:
    asked, left = silent
    asking = asyncio.create_task(gateway.complete({"model": "project/shop"}))
    await asyncio.wait_for(asked.wait(), 5)
    asking.cancel()
    await asyncio.wait_for(left.wait(), 5)


@pytest.fixture
async def silent(servers: "dict[str, FakeServer]") -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """In the place of the server `tuned` one that never answers; when it was asked, and when it was left."""
    tuned = servers["tuned"]
    await tuned.stop()
    asked, left = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        asked.set()
        await reader.read()
        left.set()
        writer.close()

    listening = await asyncio.start_server(wait, "127.0.0.1", tuned.port)
    yield asked, left
    listening.close()
    await listening.wait_closed()


async def read_into(got: list[bytes], answer: aiohttp.ClientResponse) -> None:
    async for piece in answer.content.iter_any():
        got.append(piece)


@pytest.mark.parametrize("after", [1, 3])
async def test_a_stream_that_breaks_off_is_not_taken_for_a_whole_one(
    after: int, gateway: "Gateway", server: "FakeServer", caplog: pytest.LogCaptureFixture
) -> None:
    server.breaks_off_after = after
    server.may_go_on.set()
    got: list[bytes] = []
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await read_into(got, answer)
    assert b"".join(got) == b"".join(EVENTS[:after])
    assert "ModelDeployment base: an answer broke off: it hung up" in caplog.messages


async def test_a_stream_that_goes_on_as_no_http_ends_there(
    gateway: "Gateway", servers: "dict[str, FakeServer]", caplog: pytest.LogCaptureFixture
) -> None:
    tuned, may_go_on, got = servers["tuned"], asyncio.Event(), list[bytes]()
    await tuned.stop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n" % (len(EVENTS[0]), EVENTS[0]))
        await may_go_on.wait()
        writer.write(b"no length\r\n")
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", tuned.port)
    content = {**STREAM, "model": "project/shop"}
    async with gateway.requests.post(f"{gateway.url}/v1/completions", json=content, headers=HEADERS) as reply:
        got.append(await reply.content.readany())
        may_go_on.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(read_into(got, reply), 5)
    assert b"".join(got) == EVENTS[0]
    assert "ModelDeployment tuned: an answer broke off: it does not speak HTTP" in caplog.messages
    listening.close()
    await listening.wait_closed()


class TestSilence:
    """A second of it, not 10 minutes, is too long."""

    @pytest.fixture
    def timing(self, timing: Timing) -> Timing:
        return replace(timing, read=1.0)

    async def test_a_server_that_goes_silent_is_given_up(
        self, gateway: "Gateway", server: "FakeServer", caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(aiohttp.ClientPayloadError):
            await gateway.complete(STREAM)
        assert "ModelDeployment base: an answer broke off: it said nothing for too long" in caplog.messages
        await asyncio.wait_for(server.was_left.wait(), 5)


async def test_a_packed_stream_is_passed_on_packed(gateway: "Gateway", server: "FakeServer") -> None:
    server.headers = {"Content-Encoding": "br"}
    server.may_go_on.set()
    async with (
        aiohttp.ClientSession(auto_decompress=False) as plain,
        plain.post(f"{gateway.url}/v1/completions", json=STREAM, headers=HEADERS) as answer,
    ):
        assert (answer.headers["Content-Encoding"], await answer.read()) == ("br", b"".join(EVENTS))


async def test_a_slow_client_does_not_fill_the_gateway(gateway: "Gateway", servers: "dict[str, FakeServer]") -> None:
    """Whoever reads slowly slows its server down."""
    tuned, written = servers["tuned"], 0
    await tuned.stop()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b"x" * (1 << 20))
                await writer.drain()
                written += 1
        writer.close()

    listening = await asyncio.start_server(pour, "127.0.0.1", tuned.port)
    body = json.dumps({"model": "project/shop"}).encode()
    async with gateway.requests.post(f"{gateway.url}/v1/completions", data=body, headers=HEADERS) as answer:
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.3)
        assert written < 100
        answer.close()
    listening.close()
    await listening.wait_closed()
