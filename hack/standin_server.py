"""A model's server for tests of its clients: says what it is told to say, and keeps what it was asked."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


def event(text: str) -> bytes:
    """A piece of a streamed completion."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": text}]}).encode()


DONE = b"data: [DONE]"


@dataclass
class StandinServer:
    """Answers every question with the same events, or refuses."""

    port: int = 0
    events: list[bytes] = field(default_factory=lambda: [event("sum("), event("items)"), DONE])
    status: int = 200
    body: bytes = b""
    """In the place of events, where the status is no 200."""
    kind: str = "text/event-stream; charset=utf-8"
    questions: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        self.paths.append(request.path)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        self.questions.append(await request.json())
        if self.status != 200:
            return web.Response(status=self.status, body=self.body, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": self.kind})
        await response.prepare(request)
        for line in self.events:
            await response.write(line + b"\n\n")
        return response


@contextmanager
def listening(app: web.Application) -> Iterator[int]:
    """An application that is served in a thread; yields its port."""
    loop, runner = asyncio.new_event_loop(), web.AppRunner(app, access_log=None)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@contextmanager
def standin_server() -> Iterator[StandinServer]:
    """A running one."""
    standin, app = StandinServer(), web.Application()
    app.router.add_post("/{rest:.*}", standin.answer)
    with listening(app) as standin.port:
        yield standin
