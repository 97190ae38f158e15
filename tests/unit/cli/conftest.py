"""A store service behind the local API server's service proxy, with a line between them that a test can cut."""

import asyncio
import base64
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from codetune_cli.connecting import Connection, connect
from codetune_cli.main import main
from codetune_cli.storing import StoreClient
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry
from codetune_local.testing import serve
from codetune_store.app import build_app
from codetune_store.settings import StoreSettings
from standin_server import StandinServer, standin_server

Obj = dict[str, Any]

NAMESPACE = "team"
TOKEN = "the-token-of-this-namespace"
API_KEY = "sk-the-key"
DEFINITIONS = Path(__file__).parents[3] / "crds"


@dataclass
class Line:
    """Carries bytes to the store service and back. A cut is for the next connection that has none yet."""

    port: int
    cuts: list[tuple[str, int]] = field(default_factory=list)
    """("to" or "back", bytes after which both ends are closed), one for each connection to come."""
    connections: int = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        way, left = self.cuts.pop(0) if self.cuts else ("", 0)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        ends = (writer, far_writer)
        budgets = {"to": left if way == "to" else None, "back": left if way == "back" else None}
        await asyncio.gather(
            _copy(reader, far_writer, ends, budgets["to"]), _copy(far_reader, writer, ends, budgets["back"])
        )


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, ends: tuple[asyncio.StreamWriter, ...], left: int | None
) -> None:
    try:
        while piece := await source.read(1000):
            target.write(piece if left is None else piece[:left])
            await target.drain()
            if left is not None and (left := left - len(piece)) < 0:
                break
    except ConnectionError:
        pass  # the other direction was cut
    for end in ends:
        if left is not None and left < 0:
            end.transport.abort()
        else:
            end.close()


@dataclass
class PodLogs:
    """What pods print, in the place of a kubelet."""

    lines: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """`POD/CONTAINER` → (time, text) of each line; one that is not here waits to start."""
    cuts: list[int] = field(default_factory=list)
    """Lines after which the connection breaks, one for each followed log to come."""
    asked: list[Obj] = field(default_factory=list)

    async def read_log(self, pod: Obj, container: str, **options: Any) -> AsyncIterator[bytes]:
        """The lines of a container since a whole second."""
        self.asked.append({"pod": pod["metadata"]["name"], "container": container, **options})
        lines = self.lines.get(f"{pod['metadata']['name']}/{container}")
        if lines is None:
            raise ApiError(400, "BadRequest", f'container "{container}" is waiting to start: PodInitializing')
        since: datetime | None = options["since_time"]
        asked = [(time, text) for time, text in lines if not since or time[:19] >= since.isoformat()[:19]]
        left = self.cuts.pop(0) if options["follow"] and self.cuts else len(asked)
        for time, text in asked[:left]:
            yield f"{time} {text}\n".encode() if options["timestamps"] else f"{text}\n".encode()
        if left < len(asked):
            raise RuntimeError("the kubelet went away")


@dataclass
class Desk:
    """A person's desk: a kubeconfig, folders, and what lies in the store."""

    kubeconfig: Path
    connection: Connection
    store: StoreClient
    root: Path
    """Of the artifact store."""
    line: Line
    logs: PodLogs

    @property
    def upload(self) -> Path:
        """The folder of the upload source `code` of the Project `shop`."""
        return self.root / NAMESPACE / "projects/shop/uploads/code"

    def define(self) -> None:
        """Make Codetune's kinds known to the API server."""
        for path in DEFINITIONS.glob("*.yaml"):
            definition = yaml.safe_load(path.read_text())
            self.connection.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)

    def make(self, kind: str, plural: str, name: str, spec: Obj, status: Obj | None = None) -> None:
        """Make a resource, with a status."""
        obj: Obj = {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        path = f"/apis/codetune.dev/v1alpha1/namespaces/{NAMESPACE}/{plural}"
        self.connection.ask("POST", path, obj)
        if status is not None:
            merge = "application/merge-patch+json"
            self.connection.ask("PATCH", f"{path}/{name}/status", {"status": status}, merge)

    def patch(self, path: str, body: Obj) -> None:
        """Change an object, or its status, below the namespace's paths."""
        root = "/api/v1" if path.startswith("pods/") else "/apis/codetune.dev/v1alpha1"
        merge = "application/merge-patch+json"
        self.connection.ask("PATCH", f"{root}/namespaces/{NAMESPACE}/{path}", body, merge)

    def serve_as(self, service: str, port: int, listens: int) -> None:
        """A Service whose one pod listens at a port of this machine."""
        spec = {"ports": [{"name": "http", "port": port}], "selector": {"a": "b"}}
        endpoints = build_endpoints(service, listens)
        services = f"/api/v1/namespaces/{NAMESPACE}/services"
        self.connection.ask("POST", services, {"metadata": {"name": service}, "spec": spec})
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        self.connection.ask("POST", slices, endpoints)

    def deploy(self, listens: int, status: Obj, **spec: Any) -> None:
        """A ModelDeployment `coder` whose one pod listens at a port of this machine."""
        self.make("ModelDeployment", "modeldeployments", "coder", {"baseModel": "hf://a/base", **spec}, status)
        self.serve_as("coder", spec.get("service", {}).get("port", 8000), listens)

    def person(self, folder: Path, *rules: Obj) -> Path:
        """Somebody who may do what the rules say and no more. Returns: their kubeconfig."""
        rbac, namespace = "/apis/rbac.authorization.k8s.io/v1", f"namespaces/{NAMESPACE}"
        named: Obj = {"metadata": {"name": "person"}}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "person"}
        subject = {"kind": "ServiceAccount", "name": "person", "namespace": NAMESPACE}
        accounts = f"/api/v1/{namespace}/serviceaccounts"
        self.connection.ask("POST", accounts, named)
        self.connection.ask("POST", f"{rbac}/{namespace}/roles", {**named, "rules": list(rules)})
        self.connection.ask(
            "POST", f"{rbac}/{namespace}/rolebindings", {**named, "roleRef": role, "subjects": [subject]}
        )
        token = self.connection.ask("POST", f"{accounts}/person/token", {"spec": {}})["status"]["token"]
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        made = folder / "person.kubeconfig"
        made.write_text(yaml.safe_dump(config))
        return made

    def annotations(self, plural: str, name: str) -> dict[str, str]:
        """Of a resource."""
        found = self.connection.ask("GET", f"/apis/codetune.dev/v1alpha1/namespaces/{NAMESPACE}/{plural}/{name}")
        return dict(found["metadata"].get("annotations") or {})


def build_endpoints(service: str, listens: int) -> Obj:
    """Where a Service's one pod listens."""
    return {
        "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": listens}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
    }


Started = tuple[Line, web.AppRunner, asyncio.Server]


def _run_in_thread(start: Callable[[], Coroutine[Any, Any, Started]]) -> Iterator[tuple[Line, int]]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    line, runner, server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield line, server.sockets[0].getsockname()[1]
    asyncio.run_coroutine_threadsafe(_end(runner, server), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


async def _end(runner: web.AppRunner, server: asyncio.Server) -> None:
    server.close()
    await runner.cleanup()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Line, int]]:
    """A store service and the line to it, with the line's port."""
    root = (tmp_path / "store").resolve()
    root.mkdir()
    (tmp_path / "token").write_text(TOKEN)

    async def start() -> Started:
        app = build_app(StoreSettings(root=root, namespace=NAMESPACE, token_file=tmp_path / "token"))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        line = Line(runner.addresses[0][1])
        return line, runner, await asyncio.start_server(line.carry, "127.0.0.1", 0)

    yield from _run_in_thread(start)


@pytest.fixture
def desk(served: tuple[Line, int], tmp_path: Path) -> Iterator[Desk]:
    """Everything, ready."""
    line, port = served
    registry = Registry.open(None)
    registry.create(registry.by_key("namespaces"), "", {"metadata": {"name": NAMESPACE}})
    service = {"ports": [{"name": "http", "port": 8080}], "selector": {"a": "b"}}
    secret = {"data": {"token": base64.b64encode(TOKEN.encode()).decode()}}
    for key, obj in {
        "services": {"metadata": {"name": "codetune-store"}, "spec": service},
        "secrets": {"metadata": {"name": "codetune-store-token"}, **secret},
        "endpointslices.discovery.k8s.io": build_endpoints("codetune-store", port),
    }.items():
        registry.create(registry.by_key(key), NAMESPACE, obj)
    logs = PodLogs()
    with serve(registry, runtime=logs) as kubeconfig:
        connection = connect(kubeconfig, None, NAMESPACE)
        yield Desk(kubeconfig, connection, StoreClient(connection), (tmp_path / "store").resolve(), line, logs)
        connection.api.rest_client.pool_manager.clear()


@pytest.fixture
def server() -> Iterator[StandinServer]:
    """The server of a model."""
    with standin_server() as running:
        yield running


@pytest.fixture
def complete(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """`complete(...)` asks for a completion where `a.py` and a file `key` are; returns exit code, stdout, and stderr as
    one line. The key is in nothing that it says."""
    desk.define()
    monkeypatch.delenv("CODETUNE_API_KEY", raising=False)
    (tmp_path / "a.py").write_text("def total(items):\n    return \n\nprint(total([]))\n")
    (tmp_path / "key").write_text(f"{API_KEY}\n")
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["complete", *words, "--kubeconfig", str(desk.kubeconfig), "-n", NAMESPACE])
        told = capsys.readouterr()
        assert API_KEY not in told.out + told.err
        return code, told.out, " ".join(told.err.split())

    return call
