"""A fake vLLM that answers in the words of the real one, and a serving pod made of it and the middleware.

`recorded/` holds real replies (tests/e2e/test_serving.py compares them with a live server); the fake replays them
with the names of the request, keeps what is loaded, and lets a test hold its loads and streams at will.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter, DesiredAdapters, ServerReport
from codetune_api.digests import FileEntry, digest_files
from codetune_server.copying import AdapterCopies
from codetune_server.keeping import AdapterKeeper
from codetune_server.middleware import AdapterMiddleware
from codetune_server.rewriting import parse_object
from codetune_server.routes import VllmRoutes
from codetune_server.settings import ServerSettings
from codetune_server.verifying import AdapterVerifier
from safetensors.numpy import save_file
from starlette.types import Message, Receive, Scope, Send

RECORDED = json.loads((Path(__file__).parent / "recorded" / "vllm-0.32.json").read_text())["replies"]
RECORDED_MODEL = "tuned@0123456789ab"
TOKEN = "a-secret-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class FakeVllm:
    """The routes of vLLM that the middleware meets."""

    loaded: dict[str, str] = field(default_factory=dict)
    """Model name → folder."""
    is_healthy: bool = True
    refused: dict[str, str] = field(default_factory=dict)
    """Stable name or the digest's first 12 digits → the recorded reply that its load gets."""
    crashes_on: str = ""
    """Stable name whose load raises."""
    breaks_requests: bool = False
    may_load: asyncio.Event = field(default_factory=asyncio.Event)
    may_stream: asyncio.Event = field(default_factory=asyncio.Event)
    active: Counter[str] = field(default_factory=Counter)
    unloaded_in_use: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[bytes, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.may_load.set()
        self.may_stream.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.headers.append(dict(scope["headers"]))
        body = (await receive()).get("body", b"")
        self.bodies.append(body)
        path = scope["path"]
        content = parse_object(body) or {}
        self.calls.append((path, content.get("lora_name") or content.get("model") or ""))
        if path == "/v1/load_lora_adapter":
            await self._load(content, send)
        elif path == "/v1/unload_lora_adapter":
            await self._unload(content, send)
        elif path == "/v1/models":
            await reply(send, "models", json.dumps(self._models()))
        elif path == "/health":
            await reply(send, "health", status=200 if self.is_healthy else 503)
        elif path in ("/v1/completions", "/v1/chat/completions", "/v1/responses"):
            await self._complete(path, content, receive, send)
        else:
            await reply(send, "health", f"echo {path}")

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _load(self, content: dict[str, Any], send: Send) -> None:
        name, folder = content["lora_name"], content["lora_path"]
        await self.may_load.wait()
        stable, _, digest = name.partition("@")
        if stable == self.crashes_on:
            raise RuntimeError("the engine is gone")
        if refusal := self.refused.get(stable) or self.refused.get(digest):
            await reply(send, refusal)
        elif name in self.loaded:
            await reply(send, "load-again", model=name)
        else:
            self.loaded[name] = folder
            await reply(send, "load", model=name)

    async def _unload(self, content: dict[str, Any], send: Send) -> None:
        name = content["lora_name"]
        if self.active[name]:
            self.unloaded_in_use.append(name)
        known = self.loaded.pop(name, None)
        await reply(send, "unload" if known else "unload-missing", model=name)

    def _models(self) -> dict[str, Any]:
        listed: dict[str, Any] = json.loads(RECORDED["models"]["body"])
        base, adapter = listed["data"]
        cards = [{**adapter, "id": name, "root": folder} for name, folder in self.loaded.items()]
        return {**listed, "data": [base, *cards]}

    async def _complete(self, path: str, content: dict[str, Any], receive: Receive, send: Send) -> None:
        model = content.get("model", "base")
        if model != "base" and model not in self.loaded:
            await reply(send, "unknown-model", RECORDED["unknown-model"]["body"].replace("nope", model))
            return
        kind = {"/v1/completions": "completion", "/v1/chat/completions": "chat", "/v1/responses": "responses"}[path]
        self.active[model] += 1
        try:
            if self.breaks_requests:
                raise RuntimeError("the request broke")
            if content.get("stream"):
                await self._stream(f"{kind}-stream", model, receive, send)
            elif await self._may_answer(receive):
                await reply(send, kind, model=model)
        finally:
            self.active[model] -= 1

    async def _may_answer(self, receive: Receive) -> bool:
        """Whether there is still somebody to answer when the test lets it; as vLLM does, it stops when there is not."""
        hung_up = asyncio.create_task(wait_for_hang_up(receive))
        going_on = asyncio.create_task(self.may_stream.wait())
        await asyncio.wait((going_on, hung_up), return_when=asyncio.FIRST_COMPLETED)
        hung_up.cancel()
        going_on.cancel()
        return going_on.done()

    async def _stream(self, kind: str, model: str, receive: Receive, send: Send) -> None:
        """The recorded stream, event by event; as Starlette does, it ends when the client hangs up."""
        hung_up = asyncio.create_task(wait_for_hang_up(receive))
        try:
            await start(send, kind)
            for event in RECORDED[kind]["body"].replace(RECORDED_MODEL, model).split("\n\n")[:-1]:
                await send({"type": "http.response.body", "body": f"{event}\n\n".encode(), "more_body": True})
                going_on = asyncio.create_task(self.may_stream.wait())
                await asyncio.wait((going_on, hung_up), return_when=asyncio.FIRST_COMPLETED)
                going_on.cancel()
                if hung_up.done():
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            hung_up.cancel()


async def wait_for_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def start(send: Send, name: str, status: int | None = None, length: int | None = None) -> None:
    kind = RECORDED[name]["contentType"].encode()
    headers = ([(b"content-type", kind)] if kind else []) + [(b"vary", b"Origin")]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status or RECORDED[name]["status"], "headers": headers})


async def reply(
    send: Send, name: str, body: str | None = None, *, model: str = RECORDED_MODEL, status: int | None = None
) -> None:
    """A recorded reply, about another model."""
    text = RECORDED[name]["body"] if body is None else body
    data = text.replace(RECORDED_MODEL, model).encode()
    await start(send, name, status, len(data))
    await send({"type": "http.response.body", "body": data})


@dataclass
class Pod:
    """The middleware over the fake, as a client sees it."""

    vllm: FakeVllm
    store: Path
    settings: ServerSettings
    app: AdapterMiddleware
    client: httpx.AsyncClient

    async def put(self, *adapters: DesiredAdapter, wait: float = 10) -> ServerReport:
        """Set the desired adapters as the operator does."""
        body = DesiredAdapters(adapters=list(adapters)).to_wire()
        answer = await self.client.put("/codetune/adapters", params={"wait": wait}, json=body, headers=AUTHORIZED)
        assert answer.status_code == 200, answer.text
        return ServerReport.from_wire(answer.json())

    async def report(self) -> ServerReport:
        """What the pod says of itself."""
        return ServerReport.from_wire((await self.client.get("/codetune/adapters", headers=AUTHORIZED)).json())

    def copies(self) -> set[str]:
        """Digests of what lies in the pod's scratch space."""
        root = self.settings.cache
        return {f"sha256:{folder.name}" for folder in root.iterdir()} if root.is_dir() else set()

    async def complete(self, model: str, path: str = "/v1/completions", **content: Any) -> httpx.Response:
        """A completion request."""
        return await self.client.post(path, json={"model": model, "prompt": "hello", **content})

    def start_stream(self, model: str) -> "asyncio.Task[httpx.Response]":
        """A streamed completion that runs beside the test."""
        return asyncio.create_task(self.complete(model, stream=True))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the pod work until something is so. Raises: TimeoutError after 5 s."""
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def run_pod(vllm: FakeVllm, settings: ServerSettings) -> AsyncIterator[Pod]:
    """A pod between the start and the end of its server's lifespan."""
    app = AdapterMiddleware(vllm, settings)
    messages: asyncio.Queue[Message] = asyncio.Queue()
    answers: asyncio.Queue[Message] = asyncio.Queue()
    living = asyncio.create_task(app({"type": "lifespan", "app": vllm}, messages.get, answers.put))
    await messages.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pod") as client:
        yield Pod(vllm, settings.store, settings, app, client)
    await messages.put({"type": "lifespan.shutdown"})
    await living


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    """Settings of a pod with an empty store and the token."""
    (tmp_path / "store").mkdir()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return ServerSettings(
        store=tmp_path / "store",
        cache=tmp_path / "scratch",
        adapters_file=None,
        token_file=tmp_path / "token",
        base_model="hf://org/base@main",
        model=tmp_path / "model",
        files=tmp_path / "files",
    )


@pytest.fixture
def vllm() -> FakeVllm:
    """A healthy vLLM that holds nothing."""
    return FakeVllm()


@pytest.fixture
async def pod(vllm: FakeVllm, settings: ServerSettings) -> AsyncIterator[Pod]:
    """A pod without adapters."""
    async with run_pod(vllm, settings) as running:
        yield running


@pytest.fixture
async def start_pod(vllm: FakeVllm, settings: ServerSettings) -> AsyncIterator[Callable[..., Awaitable[Pod]]]:
    """Start a pod whose mounted file names these adapters, or holds this text."""
    async with AsyncExitStack() as pods:

        async def start(desired: DesiredAdapters | str) -> Pod:
            path = settings.store.parent / "adapters.json"
            path.write_text(desired if isinstance(desired, str) else json.dumps(desired.to_wire()))
            return await pods.enter_async_context(run_pod(vllm, replace(settings, adapters_file=path)))

        yield start


@pytest.fixture
async def keeper(vllm: FakeVllm, settings: ServerSettings) -> AsyncIterator[AdapterKeeper]:
    """A keeper over the fake that tries again at once."""
    copies = AdapterCopies(settings.cache)
    verifier = AdapterVerifier(settings.store, copies, settings.base_model, settings.max_lora_rank)
    keeper = AdapterKeeper(VllmRoutes(vllm, {}), verifier, first_retry_seconds=0.01)
    task = asyncio.create_task(keeper.run())
    yield keeper
    task.cancel()
    await asyncio.wait([task])


def write_adapter(folder: Path, *, rank: int = 8, content: int = 0, **config: Any) -> str:
    """A small PEFT folder; returns its digest. Another `content` is another version."""
    folder.mkdir(parents=True, exist_ok=True)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": numpy.full((rank, 4), content, numpy.float32),
        f"{layer}.lora_B.weight": numpy.full((4, rank), content, numpy.float32),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": "hf://org/base@main", **config}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder_digest(folder)


def folder_digest(folder: Path) -> str:
    """The digest as the trainer's manifest has it."""
    data = {file: (folder / file).read_bytes() for file in ADAPTER_FILES}
    return digest_files(
        {file: FileEntry(sha256=hashlib.sha256(d).hexdigest(), bytes=len(d)) for file, d in data.items()}
    )


@pytest.fixture
def make_adapter(settings: ServerSettings) -> Callable[..., DesiredAdapter]:
    """Write `store/<path>` and say that it is wanted under a name."""

    def make(name: str, path: str | None = None, **options: Any) -> DesiredAdapter:
        path = path or name
        return DesiredAdapter(name=name, path=path, digest=write_adapter(settings.store / path, **options))

    return make
