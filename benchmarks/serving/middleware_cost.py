"""What the middleware itself computes, with a server beneath it that answers at once: no noise of a model."""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from codetune_server.infilling import InfillMiddleware
from codetune_server.middleware import AdapterMiddleware
from codetune_server.settings import ServerSettings
from codetune_server.versions import Version

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from mounted_secret import mount

EVENTS = 1000
REQUESTS = 200
ROUNDS = 20
VERSION = Version("tuned", "sha256:" + "0" * 64, Path("/"))
HEADERS = [(b"content-type", b"application/json"), (b"authorization", b"Bearer sk-key")]
EVENT = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"tuned@000000000000","choices":'
    b'[{"index":0,"text":" x","logprobs":null,"finish_reason":null}]}\n\n'
)
App = Callable[[Any, Any, Any], Awaitable[None]]


def measure_middleware() -> list[tuple[str, str]]:
    """Rows of the table: microseconds a request and a streamed event, with API keys."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        mount(keys, {"team": "sk-other\nsk-key\n"})
        settings = ServerSettings(store=Path(folder), cache=Path(folder) / "cache", api_keys=keys)
        request, event = asyncio.run(_compare(settings))
    return [
        ("computed by the middleware for a request", f"{request * 1e6:.0f} µs"),
        ("computed by the middleware for a streamed token", f"{event * 1e6:.1f} µs"),
    ]


async def _compare(settings: ServerSettings) -> tuple[float, float]:
    middleware = AdapterMiddleware(InfillMiddleware(_answer, settings.store), settings)
    keeper = middleware._start({"app": _answer})
    keeper.versions.add(VERSION)
    keeper.versions.switch(VERSION)
    request = await _difference(middleware, requests=REQUESTS, events=1)
    stream = await _difference(middleware, requests=1, events=EVENTS)
    assert middleware._task is not None
    middleware._task.cancel()
    return request, (stream - request) / (EVENTS - 1)


async def _difference(middleware: App, *, requests: int, events: int) -> float:
    """Seconds that a request takes longer with the middleware; the median over rounds, each with and without it."""
    pairs = [(await _time(middleware, requests, events), await _time(_answer, requests, events)) for _ in range(ROUNDS)]
    return statistics.median(one - other for one, other in pairs) / requests


async def _time(app: App, requests: int, events: int) -> float:
    body = json.dumps({"model": "tuned", "prompt": "x" * 4000, "stream": True, "n": events}).encode()
    message = {"type": "http.request", "body": body, "more_body": False}
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": HEADERS, "root_path": ""}

    async def receive() -> Any:
        return message

    async def send(message: Any) -> None:
        pass

    start = time.thread_time()  # of this thread, whatever else the machine does
    for _ in range(requests):
        await app(scope, receive, send)
    return time.thread_time() - start


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    """Stream as many events as the request says."""
    events = json.loads((await receive())["body"] or b"{}").get("n", 0) if scope["method"] == "POST" else 0
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for _ in range(events):
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
