"""Plans carried out and refusals told: what is written, what is left, and what a person reads when it can't be done."""

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.project import Project, ProjectStatus
from codetune_operator.cluster.eventing import EventRecorder
from codetune_operator.cluster.kinds import JOB, PROJECT
from codetune_operator.errors import ConflictError
from codetune_operator.handlers.asking import ServingReports
from codetune_operator.handlers.executing import Executor
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.observing import Observer
from codetune_operator.handlers.reconciling import REFUSED_SECONDS, Reconciler
from codetune_operator.handlers.resyncing import EARLY_SECONDS, Resync
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.handlers.watching import WATCHED
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Plan
from codetune_operator.resources.purge import purge_job_name
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Api, Request

Obj = dict[str, Any]
BASE = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine"
CONFIG = "/api/v1/namespaces/ns/configmaps/c"
SERVICE = "/api/v1/namespaces/ns/services/s"
EVENTS = "/api/v1/namespaces/ns/events"
KEY = Key("Project", "ns", "mine")


class World:
    """The operator's parts around a faked API server that holds one Project."""

    def __init__(self, api: "Api", **metadata: Any) -> None:
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
        api.answers["PATCH", BASE] = self._patch
        api.answers["PATCH", f"{BASE}/status"] = self._patch
        api.answers["POST", EVENTS] = (201, {})
        for path in (CONFIG, SERVICE):
            api.answers["PATCH", path] = self._apply

    def _patch(self, request: "Request") -> tuple[int, Any]:
        """As the server does: merge patches against the version that was seen."""
        metadata = self.live["metadata"]
        if request.body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        changed = {**metadata, **request.body["metadata"], "resourceVersion": str(int(metadata["resourceVersion"]) + 1)}
        status = {**self.live.get("status", {}), **request.body.get("status", {})}
        self.live = {**self.live, "metadata": changed, "status": status}
        return 200, self.live

    def _apply(self, request: "Request") -> tuple[int, Any]:
        version = str(len(self.api.seen))
        return 200, {**request.body, "metadata": {**request.body["metadata"], "uid": "x", "resourceVersion": version}}

    @property
    def writes(self) -> list[str]:
        return [f"{method} {path}" for method, path in self.api.calls()]

    def ready(self) -> Obj:
        (found,) = [entry for entry in self.live["status"]["conditions"] if entry["type"] == "Ready"]
        return dict(found)


def child(kind: str, name: str, **more: Any) -> Obj:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "ns"}, **more}


async def test_a_plan_is_carried_out_in_its_order(api: "Api") -> None:
    world = World(api)
    api.answers["DELETE", "/api/v1/namespaces/ns/configmaps/old"] = (200, {})
    plan = Plan(
        status=ProjectStatus(phase="Ready"),
        apply=(child("ConfigMap", "c", data={"a": "b"}),),
        delete=(ChildRef("v1", "ConfigMap", "old"),),
        events=(EventSpec("Normal", "Scanned", "Done."),),
        finalizer="Add",
    )

    await world.executor.execute(world.live, plan)

    assert world.writes == [
        f"PATCH {BASE}",
        f"PATCH {CONFIG}",
        "DELETE /api/v1/namespaces/ns/configmaps/old",
        f"PATCH {BASE}/status",
        f"POST {EVENTS}",
    ]
    assert world.live["metadata"]["finalizers"] == ["codetune.dev/artifacts"]
    assert world.store.get(PROJECT, "ns", "mine") == world.live


async def test_what_is_written_wakes_whom_it_concerns_as_the_watch_will_not(api: "Api") -> None:
    world = World(api)
    plan = Plan(status=ProjectStatus(phase="Ready"), apply=(child("Service", "s"), child("ConfigMap", "c")))

    await world.executor.execute(world.live, plan)
    await world.executor.execute(world.live, plan)

    assert world.woken == ["Service s", "Project mine"]


async def test_the_finalizer_goes_last(api: "Api") -> None:
    world = World(api, finalizers=["other", "codetune.dev/artifacts"])
    plan = Plan(status=ProjectStatus(phase="Ready"), finalizer="Remove")

    await world.executor.execute(world.live, plan)

    assert world.writes == [f"PATCH {BASE}/status", f"PATCH {BASE}"]
    assert world.live["metadata"]["finalizers"] == ["other"]
    assert world.store.get(PROJECT, "ns", "mine") == world.live


async def test_what_is_gone_by_the_time_it_was_written_stays_gone(api: "Api") -> None:
    world = World(api, finalizers=["codetune.dev/artifacts"])
    world.store.remove(world.live)

    await world.executor.execute(world.live, Plan(finalizer="Remove"))

    assert world.store.get(PROJECT, "ns", "mine") is None
    assert world.woken == []


async def test_what_is_so_already_is_not_written_again(api: "Api") -> None:
    world = World(api)
    plan = Plan(
        status=ProjectStatus(phase="Ready"),
        apply=(child("ConfigMap", "c"), child("Service", "s", spec={"type": "ClusterIP"})),
    )
    await world.executor.execute(world.live, plan)
    written = len(api.seen)

    await world.executor.execute(world.live, plan)

    assert len(api.seen) == written


DRIFT = [
    pytest.param(True, {"spec": {"type": "NodePort"}}, {}, id="its spec was edited"),
    pytest.param(True, {}, {"labels": {"app.kubernetes.io/managed-by": "me"}}, id="its labels were edited"),
    pytest.param(True, {}, {"uid": "y"}, id="it is another object"),
    pytest.param(False, {"status": {"loadBalancer": {}}}, {}, id="its status changed"),
    pytest.param(False, {}, {"managedFields": [{"manager": "x"}]}, id="the server's bookkeeping changed"),
]


@pytest.mark.parametrize(("expected", "body", "metadata"), DRIFT)
async def test_a_child_that_somebody_changed_is_repaired(expected: bool, body: Obj, metadata: Obj, api: "Api") -> None:
    world = World(api)
    wanted = child("Service", "s", spec={"type": "ClusterIP"})
    await world.executor.apply(wanted)
    (seen,) = [request.body for request in api.seen]
    drifted = {**seen, **body, "metadata": {**seen["metadata"], "uid": "x", "resourceVersion": "99", **metadata}}
    world.store.put(drifted)

    await world.executor.apply(wanted)

    assert (len(api.seen) == 2) is expected


async def test_a_child_that_was_deleted_is_made_again(api: "Api") -> None:
    world = World(api)
    wanted = child("Service", "s", spec={"type": "ClusterIP"})
    await world.executor.apply(wanted)
    gone = {**wanted, "metadata": {**wanted["metadata"], "uid": "x"}}
    assert world.store.remove(gone)

    await world.executor.apply(wanted)

    assert len(api.seen) == 2


async def test_only_what_is_known_to_be_ours_is_taken_back_from_others(api: "Api") -> None:
    world = World(api)
    for number in range(2):
        await world.executor.apply(child("Service", "s", spec={"type": "ClusterIP", "ports": [{"port": number}]}))
        await world.executor.apply(child("ConfigMap", "c", data={"a": str(number)}))

    forced = [(request.path, request.query["force"]) for request in api.seen]
    assert forced == [(SERVICE, "false"), (CONFIG, "true"), (SERVICE, "true"), (CONFIG, "true")]


async def test_an_object_of_somebody_else_is_left_and_the_resource_says_so(api: "Api") -> None:
    world = World(api, finalizers=["codetune.dev/artifacts"])
    claim = "/api/v1/namespaces/ns/persistentvolumeclaims/codetune-artifacts"
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "helm" using v1', "field": ".spec.resources"}
    api.answers["PATCH", claim] = (409, {"message": "Apply failed with 1 conflict", "details": {"causes": [cause]}})

    assert await world.reconciler.look(KEY) == REFUSED_SECONDS

    assert world.ready()["reason"] == "Refused"
    assert "not Codetune's: remove it, or choose another name" in world.ready()["message"]


async def test_an_event_in_a_namespace_that_goes_away_is_no_news(api: "Api", caplog: pytest.LogCaptureFixture) -> None:
    world = World(api)
    refusal = "events is forbidden: unable to create new content in namespace ns because it is being terminated"
    for message in (refusal, "no"):
        api.answers["POST", EVENTS] = (403, {"message": message})
        await world.executor.record(world.live, EventSpec("Normal", "Scanned", message))

    assert [record.getMessage().partition(" is lost")[0] for record in caplog.records] == ["Event Scanned about mine"]
    assert "terminated" not in caplog.text


async def test_a_child_that_is_not_watched_is_applied_again_after_a_while(api: "Api") -> None:
    world = World(api)
    wanted = child("ConfigMap", "c", data={"a": "b"})
    for world.now in (0.0, 300.0, 700.0):
        await world.executor.apply(wanted)

    assert len(api.seen) == 2


async def test_an_event_that_is_refused_holds_nothing_up(api: "Api") -> None:
    world = World(api)
    api.answers["POST", EVENTS] = (422, {"message": "Event is invalid"})

    await world.executor.execute(
        world.live, Plan(status=ProjectStatus(phase="Ready"), events=(EventSpec("Normal", "Scanned", "x"),))
    )

    assert world.live["status"]["phase"] == "Ready"


async def test_a_project_that_changed_meanwhile_is_looked_at_again(api: "Api") -> None:
    world = World(api)
    stale = world.live
    world.live = {**world.live, "metadata": {**world.live["metadata"], "resourceVersion": "5"}}

    with pytest.raises(ConflictError):
        await world.executor.execute(stale, Plan(status=ProjectStatus(phase="Ready")))


async def test_a_resource_that_can_not_be_read_says_so_and_is_left(api: "Api") -> None:
    world = World(api)
    broken = {**world.live, "spec": {"sources": [{"name": "Not A Name"}]}}
    world.store.remove(broken)
    world.store.put(broken)

    assert await world.reconciler.look(KEY) is None

    assert world.ready()["reason"] == "InvalidSpec"
    assert "spec.sources.0.name" in world.ready()["message"]
    assert world.live["status"]["observedGeneration"] == world.live["metadata"]["generation"]
    assert world.writes == [f"PATCH {BASE}/status"]


async def test_a_resource_that_can_not_be_read_can_still_be_deleted(api: "Api") -> None:
    world = World(api, finalizers=["codetune.dev/artifacts"], deletionTimestamp="2026-11-23T10:00:00Z")
    broken = {**world.live, "spec": {}}
    world.store.remove(broken)
    world.store.put(broken)

    await world.reconciler.look(KEY)

    assert world.live["metadata"]["finalizers"] == []


REFUSALS = [
    pytest.param(
        "Forbidden",
        403,
        'User "x" cannot patch resource "y"',
        "Helm chart",
        id="a right is lacking",
    ),
    pytest.param("Refused", 403, "exceeded quota: storage", "ResourceQuota", id="a quota"),
    pytest.param("Refused", 422, "spec.storageClassName: Invalid value", "storageClassName", id="invalid"),
]


@pytest.mark.parametrize(("reason", "code", "message", "words"), REFUSALS)
async def test_what_the_server_refuses_is_told_on_the_resource(
    reason: str, code: int, message: str, words: str, api: "Api"
) -> None:
    world = World(api)
    claim = "/api/v1/namespaces/ns/persistentvolumeclaims/codetune-artifacts"
    api.answers["PATCH", claim] = (code, {"message": message})

    assert await world.reconciler.look(KEY) == REFUSED_SECONDS

    assert world.ready()["reason"] == reason
    assert words in world.ready()["message"]


async def test_a_project_lets_go_when_its_namespace_goes_away(api: "Api") -> None:
    world = World(api, finalizers=["codetune.dev/artifacts"], deletionTimestamp="2026-11-23T10:00:00Z")
    world.store.put(child("PersistentVolumeClaim", "codetune-artifacts") | {"metadata": claim_metadata()})
    refused = (403, {"message": "forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}})
    job = purge_job_name(Project.from_wire(world.live))
    for kind in ("configmaps", "jobs"):
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        api.answers["PATCH", f"{group}/namespaces/ns/{kind}/{job}"] = refused

    assert await world.reconciler.look(KEY) == 0.0
    await world.reconciler.look(KEY)

    assert world.live["metadata"]["finalizers"] == []


async def test_nothing_is_done_about_what_is_gone(api: "Api") -> None:
    world = World(api)
    world.store.remove(world.live)

    assert await world.reconciler.look(KEY) is None
    assert api.seen == []


async def test_a_plan_without_content_writes_nothing(api: "Api") -> None:
    world = World(api)

    await world.executor.execute(world.live, Plan())

    assert api.seen == []


def claim_metadata() -> Obj:
    return {"name": "codetune-artifacts", "namespace": "ns", "uid": "c1", "resourceVersion": "1"}


async def test_a_child_whose_end_nobody_told_is_forgotten_when_its_deletion_finds_nothing(api: "Api") -> None:
    world = World(api)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "u7"}}
    world.store.put(job)

    await world.executor.execute(world.live, Plan(delete=(ChildRef("batch/v1", "Job", "j", "u7"),)))

    assert world.store.get(JOB, "ns", "j") is None
    assert world.woken == ["Job j"]


async def test_what_vanished_between_the_first_lists_and_the_watches_is_noticed_soon(api: "Api") -> None:
    for kind in WATCHED:
        api.answers["GET", kind.path()] = (200, {"items": [], "metadata": {"resourceVersion": "5"}})
    job = {"metadata": {"name": "j", "namespace": "ns", "uid": "u7", "resourceVersion": "4", "labels": {}}}
    api.answers["GET", "/apis/batch/v1/jobs"] = (200, {"items": [job], "metadata": {"resourceVersion": "5"}})
    store, woken, pauses = Store(), asyncio.Event(), []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 1:
            await asyncio.Event().wait()

    resync = Resync(api.connect(), store, [], sleep)
    await resync.prime()
    assert store.get(JOB, "ns", "j") is not None
    api.answers["GET", "/apis/batch/v1/jobs"] = (200, {"items": [], "metadata": {"resourceVersion": "9"}})

    task = asyncio.create_task(resync.run(lambda obj: woken.set()))
    await asyncio.wait_for(woken.wait(), 30)
    task.cancel()

    assert store.get(JOB, "ns", "j") is None
    assert pauses[0] == min(EARLY_SECONDS)
