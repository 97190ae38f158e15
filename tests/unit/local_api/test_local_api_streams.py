"""What passes through the service proxy: bodies of any size as they come, headers, and ends that come too early."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
import yaml
from aiohttp import web
from codetune_local.apiserver.registry import Registry
from codetune_local.testing import serve

PROXY = "/api/v1/namespaces/default/services/http:web:8080/proxy"
PIECE = b"x" * 100_000


class Backend:
    """A server that a Service leads to."""

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()
        self.arrived: list[int] = []

    async def take(self, request: web.Request) -> web.Response:
        """Counts what comes."""
        async for piece in request.content.iter_chunked(65536):
            self.arrived.append(len(piece))
        own = {key: value for key, value in request.headers.items() if key.lower().startswith("x-codetune")}
        return web.json_response({"bytes": sum(self.arrived), "headers": own, "host": request.headers["Host"]})

    async def give(self, request: web.Request) -> web.StreamResponse:
        """Answers in two pieces; the second when it is told to."""
        response = web.StreamResponse(status=206, headers={"Content-Range": "bytes 0-199999/200000"})
        response.content_length = 2 * len(PIECE)
        await response.prepare(request)
        await response.write(PIECE)
        await asyncio.wait_for(self.may_go_on.wait(), 20)
        if "broken" in request.path:
            assert request.transport is not None
            request.transport.abort()
        await response.write(PIECE)
        return response

    async def refuse(self, _: web.Request) -> web.Response:
        """Answers before it has read anything."""
        return web.json_response({"reason": "TooLarge"}, status=413)


@pytest.fixture
async def backend() -> AsyncIterator[tuple[Backend, Registry]]:
    made, app = Backend(), web.Application(client_max_size=1 << 30)
    app.router.add_put("/take", made.take)
    app.router.add_get("/give", made.give)
    app.router.add_get("/broken", made.give)
    app.router.add_post("/refuse", made.refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    registry = Registry.open(None)
    registry.create(registry.by_key("namespaces"), "", {"metadata": {"name": "default"}})
    spec = {"ports": [{"name": "http", "port": 8080}], "selector": {"app": "web"}}
    registry.create(registry.by_key("services"), "default", {"metadata": {"name": "web"}, "spec": spec})
    piece = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": runner.addresses[0][1]}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }
    registry.create(registry.by_key("endpointslices.discovery.k8s.io"), "default", piece)
    yield made, registry
    await runner.cleanup()


def connect(kubeconfig: str) -> tuple[aiohttp.ClientSession, str]:
    config = yaml.safe_load(kubeconfig)
    token = config["users"][0]["user"]["token"]
    session = aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}"}, connector=aiohttp.TCPConnector(ssl=False)
    )
    return session, config["clusters"][0]["cluster"]["server"] + PROXY


async def test_a_large_body_arrives_whole_with_the_callers_own_headers(backend: tuple[Backend, Registry]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(120):
            yield PIECE

    with serve(backend[1]) as kubeconfig:
        session, url = connect(kubeconfig.read_text())
        async with session, session.put(f"{url}/take", data=pieces(), headers={"X-Codetune-Token": "t"}) as answer:
            told = await answer.json()
    assert (told["bytes"], told["headers"]) == (12_000_000, {"X-Codetune-Token": "t"})


async def test_an_answer_comes_as_it_is_made(backend: tuple[Backend, Registry]) -> None:
    with serve(backend[1]) as kubeconfig:
        session, url = connect(kubeconfig.read_text())
        async with session, session.get(f"{url}/give", headers={"Range": "bytes=0-"}) as answer:
            first = await answer.content.readexactly(len(PIECE))
            backend[0].may_go_on.set()
            rest = await answer.read()
    assert (answer.status, answer.headers["Content-Range"]) == (206, "bytes 0-199999/200000")
    assert (first, rest) == (PIECE, PIECE)


async def test_an_answer_that_breaks_off_breaks_off_for_the_caller(backend: tuple[Backend, Registry]) -> None:
    with serve(backend[1]) as kubeconfig:
        session, url = connect(kubeconfig.read_text())
        async with session, session.get(f"{url}/broken") as answer:
            await answer.content.readexactly(len(PIECE))
            backend[0].may_go_on.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_a_body_that_is_refused_before_it_is_read_gets_its_answer(backend: tuple[Backend, Registry]) -> None:
    with serve(backend[1]) as kubeconfig:
        session, url = connect(kubeconfig.read_text())
        async with session, session.post(f"{url}/refuse", data=PIECE) as answer:
            assert (answer.status, await answer.json()) == (413, {"reason": "TooLarge"})
