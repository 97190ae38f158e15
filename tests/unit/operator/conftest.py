"""An API server that is faked at the transport (answers by a table, real client, real HTTP), and Projects whose cluster
and clock are played."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from codetune_api.common import Failure
from codetune_api.contracts import ScanResult
from codetune_api.project import Project, ProjectStatus
from codetune_api.protocol import ResultEvent
from codetune_operator.cluster.connecting import Cluster
from codetune_operator.cluster.eventing import EventRecorder
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.executing import Executor
from codetune_operator.handlers.observing import Observer
from codetune_operator.handlers.reconciling import Reconciler
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile.datasets import DatasetUse
from codetune_operator.reconcile.durations import format_time
from codetune_operator.reconcile.observed import ProjectView
from codetune_operator.reconcile.plan import EventSpec, Plan
from codetune_operator.reconcile.project import reconcile
from codetune_operator.runs.report import RunReport
from codetune_operator.settings import Settings
from kubernetes.client import ApiClient, Configuration

Obj = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class Api:
    """Answers requests by a table: method and path → status and body, or a function of the request."""

    url: str
    answers: dict[tuple[str, str], tuple[int, Any] | Callable[[Request], tuple[int, Any]]] = field(default_factory=dict)
    seen: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> tuple[int, Any]:
        self.seen.append(request)
        found = self.answers.get((request.method, request.path), (404, {"message": f"{request.path} not found"}))
        return found(request) if callable(found) else found

    def connect(self) -> Cluster:
        configuration = Configuration(host=self.url, api_key={"BearerToken": "Bearer secret-token"})
        return Cluster(ApiClient(configuration))

    def calls(self) -> list[tuple[str, str]]:
        return [(request.method, request.path) for request in self.seen]


@pytest.fixture
def api() -> Iterator[Api]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            body = json.loads(content) if content else None
            status, answer = served.answer(Request(self.command, parts.path, query, body, headers))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Api(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


class World:
    """The operator's parts around a faked API server that holds one Project."""

    BASE = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine"
    CONFIG = "/api/v1/namespaces/ns/configmaps/c"
    SERVICE = "/api/v1/namespaces/ns/services/s"
    EVENTS = "/api/v1/namespaces/ns/events"

    def __init__(self, api: Api, **metadata: Any) -> None:
        self.api = api
        self.now = 0.0
        cluster = api.connect()
        self.store = Store()
        self.serving = ServingReports(lambda: self.now)
        recorder = EventRecorder(cluster)
        self.woken: list[str] = []
        self.executor = Executor(
            cluster,
            self.store,
            recorder,
            self.serving,
            lambda obj: self.woken.append(f"{obj['kind']} {obj['metadata']['name']}"),
            clock=lambda: self.now,
        )
        self.logs = LogTracker(cluster, lambda key: None)
        self.observer = Observer(self.store, self.logs, self.serving, b"key")
        self.reconciler = Reconciler(Settings(), self.store, self.observer, self.executor, self.logs)
        self.live: Obj = {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "Project",
            "metadata": {"name": "mine", "namespace": "ns", "uid": "u1", "resourceVersion": "1", "generation": 1}
            | metadata,
            "spec": {"sources": [{"name": "a", "git": {"url": "https://example.org/a.git"}}]},
        }
        self.store.put(self.live)
        api.answers["PATCH", self.BASE] = self._patch
        api.answers["PATCH", f"{self.BASE}/status"] = self._patch
        api.answers["POST", self.EVENTS] = (201, {})
        self.there: dict[str, Obj] = {}
        """What is at CONFIG and SERVICE."""
        for path in (self.CONFIG, self.SERVICE):
            api.answers["PATCH", path] = api.answers["GET", path] = self._serve_child

    def _patch(self, request: Request) -> tuple[int, Any]:
        """As the server does: merge patches against the version that was seen."""
        metadata = self.live["metadata"]
        if request.body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        changed = {**metadata, **request.body["metadata"]}
        if "deletionTimestamp" not in changed or changed.get("finalizers"):
            changed["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        status = {**self.live.get("status", {}), **request.body.get("status", {})}
        self.live = {**self.live, "metadata": changed, "status": status}
        return 200, self.live

    def _serve_child(self, request: Request) -> tuple[int, Any]:
        """As the server does: a uid that is named has to be the present one."""
        there, version = self.there.get(request.path), str(len(self.api.seen))
        if self.is_look(request):
            return (404, {"message": "not found"}) if there is None else (200, there)
        uid = there["metadata"]["uid"] if there else f"x{version}"
        if request.body["metadata"].get("uid", uid) != uid or ("uid" in request.body["metadata"] and not there):
            return 409, {"message": "uid mismatch"}
        metadata = {**request.body["metadata"], "uid": uid, "resourceVersion": version}
        self.there[request.path] = {**request.body, "metadata": metadata}
        return 200, self.there[request.path]

    @property
    def writes(self) -> list[str]:
        return [f"{request.method} {request.path}" for request in self.api.seen if not self.is_look(request)]

    @property
    def looks(self) -> list[str]:
        return [request.path for request in self.api.seen if self.is_look(request)]

    def ready(self) -> Obj:
        (found,) = [entry for entry in self.live["status"]["conditions"] if entry["type"] == "Ready"]
        return dict(found)

    def stalled(self) -> bool:
        return any(entry["type"] == "Stalled" for entry in self.live["status"]["conditions"])

    @staticmethod
    def is_look(request: Request) -> bool:
        return request.method == "GET" or request.query.get("dryRun") == "All"

    @staticmethod
    def child(kind: str, name: str, **more: Any) -> Obj:
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "ns"}, **more}

    @staticmethod
    def owned_by(kind: str, name: str, uid: str = "o1") -> Obj:
        return {"ownerReferences": [{"kind": kind, "name": name, "uid": uid, "controller": True}]}


MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(api: Api) -> MakeWorld:
    """Makes the operator's parts around `api`; keywords: metadata of the Project."""
    return partial(World, api)


Outcome = ScanResult | Failure


@dataclass
class Scan:
    """A scan Job that was made."""

    name: str
    began: datetime
    ends: datetime
    config: Any
    outcome: Outcome


class Story:
    """A Project through time: its reconciler is real; the cluster, which does what plans say, and the clock are played.

    The operator looks when its plan asked for it and when something changed, as the work queue has it.
    """

    def __init__(self, spec: dict[str, Any], now: datetime) -> None:
        metadata = {"name": "mine", "namespace": "ns", "uid": "u1", "finalizers": ["codetune.dev/artifacts"]}
        self._wire = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": metadata, "spec": spec}
        self._generation, self._rescan = 1, ""
        self.now, self.status = now, ProjectStatus()
        self.uses: tuple[DatasetUse, ...] = ()
        self.outcomes: list[Outcome] = []
        """What the next scans come to; the last one goes for all that follow."""
        self.scan_seconds = 30.0
        self.scans: list[Scan] = []
        """Every scan that was ever made."""
        self.running: Scan | None = None
        self.events: list[EventSpec] = []
        self.looks = 0
        self.plan = Plan()

    @property
    def project(self) -> Project:
        """The Project as it is now."""
        metadata = {**self._wire["metadata"], "generation": self._generation}
        metadata["annotations"] = {"codetune.dev/rescan": self._rescan} if self._rescan else {}
        return Project.from_wire({**self._wire, "metadata": metadata}).model_copy(update={"status": self.status})

    def edit(self, **spec: Any) -> None:
        """A person edits the spec."""
        self._wire = {**self._wire, "spec": {**self._wire["spec"], **spec}}
        self._generation += 1
        self.settle()

    def rescan(self, value: str) -> None:
        """A person sets the annotation."""
        self._rescan = value
        self.settle()

    def settle(self) -> None:
        """Look until there is nothing more to do at this moment."""
        for _ in range(20):
            before = (self.status, self.running)
            self.look()
            if (self.status, self.running) == before:
                return
        raise AssertionError(f"It does not come to rest: {self.status}")

    def look(self) -> None:
        """One look, and what its plan asks for."""
        self.looks += 1
        self.plan = plan = reconcile(self._observe(), Settings(), self.now)
        if self.running is not None and self.running.name in {child.name for child in plan.delete}:
            self.running = None
        if plan.apply:
            self._start(plan)
        assert isinstance(plan.status, ProjectStatus)
        self.status = plan.status
        self.events += plan.events

    def run_until(self, end: datetime) -> None:
        """Let time pass."""
        self.settle()
        while True:
            due = [end]
            if self.plan.requeue_after is not None:
                due.append(self.now + timedelta(seconds=max(self.plan.requeue_after, 0.001)))
            if self.running is not None and self.running.ends > self.now:
                due.append(self.running.ends)
            self.now = min(due)
            if self.now >= end:
                self.now = end
                return
            self.settle()

    def condition(self, kind: str) -> str:
        """A condition as `status/reason`; empty when it is not there."""
        found = [entry for entry in self.status.conditions if entry.type == kind]
        return f"{found[0].status}/{found[0].reason}" if found else ""

    def _start(self, plan: Plan) -> None:
        config, job = plan.apply
        name = job["metadata"]["name"]
        assert self.running is None, f"{name} begins beside {self.running}"
        assert name not in {scan.name for scan in self.scans}, "a scan is never made twice"
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        ends = self.now + timedelta(seconds=self.scan_seconds)
        self.running = Scan(name, self.now, ends, json.loads(config["data"]["config.json"]), outcome)
        self.scans.append(self.running)

    def _observe(self) -> ProjectView:
        scan, empty = self.running, ProjectView(self.project, uses=self.uses, claim={"kind": "x"})
        if scan is None:
            return empty
        job: dict[str, Any] = {"metadata": {"name": scan.name, "uid": scan.name}, "spec": {}, "status": {}}
        if scan.ends > self.now:
            return replace(empty, jobs=(job,))
        failed = isinstance(scan.outcome, Failure)
        ended = {"type": "Failed" if failed else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
        job["status"]["conditions"] = [{**ended, "lastTransitionTime": format_time(scan.ends)}]
        if isinstance(scan.outcome, ScanResult):
            return replace(empty, jobs=(job,), report=RunReport(result=ResultEvent(scan=scan.outcome)))
        last_words = {"exitCode": 1, "message": scan.outcome.model_dump_json(by_alias=True)}
        container = {"name": "scan", "state": {"terminated": last_words}}
        pod = {
            "metadata": {"name": "p", "labels": {"job-name": scan.name}},
            "status": {"phase": "Failed", "containerStatuses": [container]},
        }
        return replace(empty, jobs=(job,), pods=(pod,))


def scan_result(revision: str = "a", **reasons: str) -> ScanResult:
    """A scan that made a dataset; each keyword names a source and why it failed, or nothing."""
    sources = [
        {"name": name, "files": 0 if reason else 10, "reason": reason, "message": f"{reason}: No." if reason else ""}
        for name, reason in (reasons or {"app": ""}).items()
    ]
    return ScanResult.model_validate(
        {
            "revision": "sha256:" + revision * 64,
            "uri": f"ns/projects/mine/{revision * 64}",
            "sources": sources,
            "fileTypes": [{"type": "Python", "extensions": [".py"], "files": 10, "accepted": 8, "rejected": 2}],
            "files": {"total": 10, "accepted": 8, "rejected": 2, "trained": 7, "heldOut": 1, "bytes": 90},
            "rejections": [{"reason": "TooLarge", "files": 2, "examples": ["a.py", "b.py"]}],
        }
    )


@pytest.fixture
def story() -> Callable[..., Story]:
    """Tells a Project with one source, by keywords of its spec; its scans find dataset `a`."""

    def tell(now: datetime = datetime(2026, 11, 23, 10, 0, tzinfo=UTC), **spec: Any) -> Story:
        source = {"name": "app", "git": {"url": "https://git.example.org/app.git"}}
        told = Story({"sources": [source], **spec}, now)
        told.outcomes = [scan_result()]
        return told

    return tell


@pytest.fixture
def result() -> Callable[..., ScanResult]:
    """Makes a scan's result."""
    return scan_result
