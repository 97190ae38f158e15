"""Routes of the local API server that end at a pod, and the in-process client beside them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry
from codetune_local.inprocess import Client
from codetune_local.testing import serve
from yarl import URL

Obj = dict[str, Any]
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}


class SomeLogs:
    """Notes what it is asked and answers two lines."""

    def __init__(self) -> None:
        self.asked: Obj = {}

    async def read_log(self, pod: Obj, container: str, **options: Any) -> AsyncIterator[bytes]:
        self.asked = {"pod": pod["metadata"]["name"], "container": container, **options}
        yield b"one\n"
        yield b"two\n"


def session(kubeconfig: Any) -> aiohttp.ClientSession:
    """Requests of the admin."""
    config = yaml.safe_load(kubeconfig.read_text())
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    return aiohttp.ClientSession(config["clusters"][0]["cluster"]["server"], headers=headers, connector=connector)


async def fetch(kubeconfig: Any, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
    async with session(kubeconfig) as requests, requests.request(method, path, **options) as answer:
        return answer.status, await answer.text()


async def test_a_log_is_asked_for_as_the_query_says() -> None:
    logs = SomeLogs()
    with serve(runtime=logs) as kubeconfig:
        await fetch(kubeconfig, "/api/v1/namespaces/default/pods", "POST", json=POD)
        query = "container=b&tailLines=5&timestamps=true&previous=true&limitBytes=9&sinceTime=2026-02-03T04:05:06Z"
        answer = await fetch(kubeconfig, f"/api/v1/namespaces/default/pods/p/log?{query}")
    assert answer == (200, "one\ntwo\n")
    assert logs.asked == {
        "pod": "p",
        "container": "b",
        "follow": False,
        "previous": True,
        "since_time": datetime.fromisoformat("2026-02-03T04:05:06Z"),
        "timestamps": True,
        "tail_lines": 5,
        "limit_bytes": 9,
    }


LOG_REFUSALS: dict[str, tuple[str, str]] = {
    "no container of several is named": ("", "a container name must be specified for pod p, choose one of: [a b]"),
    "another container": ("?container=c", "container c is not valid for pod p"),
    "a time that is none": ("?container=a&sinceTime=noon", "sinceTime='noon' is not an RFC 3339 time"),
    "a number that is none": ("?container=a&tailLines=all", "tailLines='all' is not a number"),
}


@pytest.mark.parametrize("row", LOG_REFUSALS.values(), ids=LOG_REFUSALS.keys())
async def test_a_log_request_that_makes_no_sense_is_refused(row: tuple[str, str]) -> None:
    query, text = row
    with serve(runtime=SomeLogs()) as kubeconfig:
        await fetch(kubeconfig, "/api/v1/namespaces/default/pods", "POST", json=POD)
        status, body = await fetch(kubeconfig, f"/api/v1/namespaces/default/pods/p/log{query}")
    assert (status, text in json.loads(body)["message"]) == (400, True), body


@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward"])
async def test_what_the_local_cluster_does_not_offer_says_so(subresource: str) -> None:
    with serve() as kubeconfig:
        await fetch(kubeconfig, "/api/v1/namespaces/default/pods", "POST", json=POD)
        status, body = await fetch(kubeconfig, f"/api/v1/namespaces/default/pods/p/{subresource}", "POST")
    assert (status, "does not offer" in json.loads(body)["message"]) == (501, True)


# -- proxies


async def echo(request: web.Request) -> web.Response:
    """Tells what arrived."""
    seen = {"method": request.method, "path": request.raw_path, "body": await request.text()}
    seen["authorization"] = request.headers.get("Authorization", "")
    return web.json_response(seen, status=203, headers={"X-Answer": "yes"})


async def run_backend() -> tuple[web.AppRunner, int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


def make_backed_service(registry: Registry, port: int, *, ready: bool = True) -> None:
    """A Service `web` with one endpoint, as the controllers write it."""
    registry.create(registry.by_key("namespaces"), "", {"metadata": {"name": "default"}})
    spec = {"ports": [{"name": "http", "port": 80}], "selector": {"app": "web"}}
    registry.create(registry.by_key("services"), "default", {"metadata": {"name": "web"}, "spec": spec})
    piece = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
    }
    registry.create(registry.by_key("endpointslices.discovery.k8s.io"), "default", piece)


PROXIED: dict[str, tuple[str, str, str]] = {
    "a service by the name of its port": ("services/web:http", "GET", "/"),
    "a service by the number of its port": ("services/web:80", "POST", "/v1/x?a=1&b=two%20words"),
    "a service of one port": ("services/web", "PUT", "/codetune/adapters?wait=5"),
    "a service with its scheme": ("services/http:web:80", "DELETE", "/deep/path/%2Fescaped"),
    "a service with a PATCH": ("services/web", "PATCH", "/x"),
}


@pytest.mark.parametrize("row", PROXIED.values(), ids=PROXIED.keys())
async def test_a_proxied_request_arrives_as_it_was_sent_without_the_callers_token(row: tuple[str, str, str]) -> None:
    target, method, path = row
    backend, port = await run_backend()
    registry = Registry.open(None)
    make_backed_service(registry, port)
    with serve(registry) as kubeconfig:
        url = f"/api/v1/namespaces/default/{target}/proxy{path}"
        async with session(kubeconfig) as requests:
            body = None if method == "GET" else "the body"
            async with requests.request(method, _exact(kubeconfig, url), data=body) as answer:
                seen = await answer.json()
    await backend.cleanup()
    assert (answer.status, answer.headers["X-Answer"]) == (203, "yes")
    assert seen == {"method": method, "path": path, "body": body or "", "authorization": ""}


def _exact(kubeconfig: Any, path: str) -> URL:
    """A URL whose path is not escaped again."""
    server = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return URL(server + path, encoded=True)


async def test_a_service_without_a_ready_endpoint_is_unavailable() -> None:
    registry = Registry.open(None)
    make_backed_service(registry, 1, ready=False)
    with serve(registry) as kubeconfig:
        status, body = await fetch(kubeconfig, "/api/v1/namespaces/default/services/web/proxy/")
    assert (status, json.loads(body)["message"]) == (503, 'no endpoints available for service "web"')


# -- the client inside the process


async def first(events: Any, count: int) -> list[tuple[str, str]]:
    found = []
    async for event in events:
        found.append((event.type, event.object["metadata"]["name"]))
        if len(found) == count:
            break
    return found


async def test_the_client_inside_sees_what_is_there_and_what_comes() -> None:
    registry = Registry.open(None)
    client = Client(registry)
    await client.create("namespaces", {"metadata": {"name": "n"}})
    await client.create("configmaps", {"metadata": {"name": "old", "namespace": "n"}})
    following = asyncio.create_task(first(client.watch("configmaps"), 4))
    await asyncio.sleep(0)
    await client.create("configmaps", {"metadata": {"name": "new", "namespace": "n"}})
    await client.merge_patch("configmaps", "new", "n", {"data": {"a": "1"}})
    await client.delete("configmaps", "old", "n")
    expected = [("ADDED", "old"), ("ADDED", "new"), ("MODIFIED", "new"), ("DELETED", "old")]
    assert await asyncio.wait_for(following, 10) == expected
    registry.storage.close()


async def test_the_client_inside_keeps_the_same_rules() -> None:
    registry = Registry.open(None)
    client = Client(registry)
    await client.create("namespaces", {"metadata": {"name": "n"}})
    made = await client.create("configmaps", {"metadata": {"generateName": "c-", "namespace": "n"}})
    name = made["metadata"]["name"]
    await client.update("configmaps", {**made, "data": {"a": "1"}})
    with pytest.raises(ApiError) as stale:
        await client.update("configmaps", {**made, "data": {"a": "2"}})
    assert (stale.value.code, stale.value.reason) == (409, "Conflict")
    with pytest.raises(ApiError) as mistaken:
        await client.delete("configmaps", name, "n", uid="other")
    assert mistaken.value.code == 409
    assert [found["metadata"]["name"] for found in await client.list("configmaps", "n")] == [name]
    assert {"pods", "jobs.batch"} <= {info.key for info in client.resources()}
    registry.storage.close()


async def test_a_pod_on_a_node_goes_in_two_steps() -> None:
    registry = Registry.open(None)
    client = Client(registry)
    await client.create("namespaces", {"metadata": {"name": "n"}})
    spec = {"nodeName": "here", "containers": [{"name": "c", "image": "x"}], "terminationGracePeriodSeconds": 7}
    await client.create("pods", {"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
    await client.delete("pods", "p", "n")
    marked = (await client.get("pods", "p", "n"))["metadata"]
    assert (marked["deletionGracePeriodSeconds"], "deletionTimestamp" in marked) == (7, True)
    await client.delete("pods", "p", "n", grace_period_seconds=0)
    with pytest.raises(ApiError, match="not found"):
        await client.get("pods", "p", "n")
    registry.storage.close()
