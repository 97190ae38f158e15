"""What a team's gateway computes, with a server behind it that answers at once: no noise of a model.

The gateway is the program that its pods run, and its CPU time is what the kernel says (Linux). By itself:

    python benchmarks/serving/gateway_cost.py
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from codetune_api.contracts import ENV_CONFIG
from codetune_api.gateway import ENV_TEAM_KEYS, GatewayConfig, Upstream

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "hack"))

from mounted_secret import mount

EVENTS = 1000
REQUESTS = 200
ROUNDS = 20
PORT = 8000
EVENT = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"base","choices":[{"index":0,"text":" x",'
    b'"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}\n\n'
)
LAST = EVENT.replace(b'"finish_reason":null', b'"finish_reason":"length"')
USAGE = (
    b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"base","choices":[],'
    b'"usage":{"prompt_tokens":2,"total_tokens":5,"completion_tokens":3},"system_fingerprint":"vllm"}\n\n'
)
DONE = b"data: [DONE]\n\n"


def measure_gateway() -> list[tuple[str, str]]:
    """Rows of the table: microseconds a request and a streamed event, with two API keys."""
    with tempfile.TemporaryDirectory() as folder:
        request, event = asyncio.run(_measure(Path(folder)))
    return [
        ("computed by a team's gateway for a request", f"{request * 1e6:.0f} µs"),
        ("computed by a team's gateway for a streamed token", f"{event * 1e6:.0f} µs"),
    ]


async def _measure(folder: Path) -> tuple[float, float]:
    pace = Pace()
    async with pace.listen() as url, _run_gateway(folder, url) as (host, process):
        reader, writer = await asyncio.open_connection(host, PORT)
        await _ask(reader, writer, pace, EVENTS)  # its first of everything
        requests, streams = [], []
        for _ in range(ROUNDS):
            start = _cpu_seconds(process)
            for _ in range(REQUESTS):
                await _ask(reader, writer, pace, 1)
            between = _cpu_seconds(process)
            await _ask(reader, writer, pace, EVENTS)
            requests.append((between - start) / REQUESTS)
            streams.append(_cpu_seconds(process) - between)
        writer.close()
        request = statistics.median(requests)
        return request, (statistics.median(streams) - request) / (EVENTS - 1)


class Pace:
    """A server whose streams go on when the client has got an event, so that the gateway is given one at a time."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Answer as long as this lasts; gives the URL."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                request = json.loads(await _read_message(reader))
            except asyncio.IncompleteReadError:
                writer.close()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(request["max_tokens"] - 1):
                self.taken.clear()
                writer.write(_chunk(EVENT))
                await self.taken.wait()
            usage = USAGE if request.get("stream_options") else b""
            writer.write(b"".join(map(_chunk, filter(None, (LAST, usage, DONE)))) + b"0\r\n\r\n")


@asynccontextmanager
async def _run_gateway(folder: Path, url: str) -> AsyncIterator[tuple[str, int]]:
    """The program on an address of its own; gives that and the number of the process."""
    upstream = Upstream(url=url, model="base", deployment="coder")
    config = GatewayConfig(team="team", default=upstream, projects={"shop": upstream})
    (folder / "config.json").write_text(config.model_dump_json(by_alias=True))
    mount(folder / "keys", {"ide": "sk-other\nsk-key\n"})
    host = f"127.{os.getpid() % 250 + 2}.{os.getpid() // 250 % 250}.7"
    told = {ENV_CONFIG: folder / "config.json", ENV_TEAM_KEYS: folder / "keys", "CODETUNE_BIND_HOST": host}
    environment = {**os.environ, **{name: str(value) for name, value in told.items()}}
    process = subprocess.Popen([sys.executable, "-m", "codetune_gateway"], env=environment, stdout=subprocess.DEVNULL)
    try:
        await _wait_for(host)
        yield host, process.pid
    finally:
        process.kill()
        process.wait()
        await asyncio.sleep(0.1)  # for the server to hear of it


async def _wait_for(host: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, PORT)
            except ConnectionError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pace: Pace, events: int) -> None:
    """One stream of so many tokens, to its end."""
    body = json.dumps({"model": "project/shop", "prompt": "x" * 4000, "stream": True, "max_tokens": events}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer sk-key\r\n"
    writer.write(head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    answered = await reader.readuntil(b"\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 200 "), answered
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        pace.taken.set()
    await reader.readexactly(2)


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    """The body of a request. Raises: asyncio.IncompleteReadError."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _cpu_seconds(process: int) -> float:
    """What all threads of a process have computed."""
    files = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


if __name__ == "__main__":
    for what, figure in measure_gateway():
        print(f"| {what} | {figure} |")
