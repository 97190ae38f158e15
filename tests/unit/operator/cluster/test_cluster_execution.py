"""Plans carried out: what is written, what is left as it is, and whose it may be."""

from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.project import ProjectStatus
from codetune_operator.cluster.kinds import JOB, PROJECT
from codetune_operator.errors import ConflictError, OccupiedError
from codetune_operator.reconcile.plan import ChildRef, EventSpec, Plan

if TYPE_CHECKING:
    from unit.operator.conftest import Api, MakeWorld

Obj = dict[str, Any]
BASE = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine"
CONFIG = "/api/v1/namespaces/ns/configmaps/c"
SERVICE = "/api/v1/namespaces/ns/services/s"
EVENTS = "/api/v1/namespaces/ns/events"


async def test_a_plan_is_carried_out_in_its_order(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    api.answers["DELETE", "/api/v1/namespaces/ns/configmaps/old"] = (200, {})
    plan = Plan(
        status=ProjectStatus(phase="Ready"),
        apply=(world.child("ConfigMap", "c", data={"a": "b"}),),
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


async def test_what_is_written_wakes_whom_it_concerns_as_the_watch_will_not(make_world: "MakeWorld") -> None:
    world = make_world()
    plan = Plan(status=ProjectStatus(phase="Ready"), apply=(world.child("Service", "s"), world.child("ConfigMap", "c")))

    await world.executor.execute(world.live, plan)
    await world.executor.execute(world.live, plan)

    assert world.woken == ["Service s", "Project mine"]


async def test_the_finalizer_goes_last(make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["other", "codetune.dev/artifacts"])
    plan = Plan(status=ProjectStatus(phase="Ready"), finalizer="Remove")

    await world.executor.execute(world.live, plan)

    assert world.writes == [f"PATCH {BASE}/status", f"PATCH {BASE}"]
    assert world.live["metadata"]["finalizers"] == ["other"]
    assert world.store.get(PROJECT, "ns", "mine") == world.live


async def test_what_is_gone_by_the_time_it_was_written_stays_gone(make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"])
    world.store.remove(world.live)

    await world.executor.execute(world.live, Plan(finalizer="Remove"))

    assert world.store.get(PROJECT, "ns", "mine") is None
    assert world.woken == []


async def test_what_is_so_already_is_not_written_again(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    plan = Plan(
        status=ProjectStatus(phase="Ready"),
        apply=(world.child("ConfigMap", "c"), world.child("Service", "s", spec={"type": "ClusterIP"})),
    )
    await world.executor.execute(world.live, plan)
    written = len(api.seen)

    await world.executor.execute(world.live, plan)

    assert len(api.seen) == written


DRIFT = [
    pytest.param(True, {"spec": {"type": "NodePort"}}, {}, id="its spec was edited"),
    pytest.param(True, {}, {"labels": {"tier": "mine"}}, id="its labels were edited"),
    pytest.param(True, {}, {"uid": "y"}, id="it is another object"),
    pytest.param(False, {"status": {"loadBalancer": {}}}, {}, id="its status changed"),
    pytest.param(False, {}, {"managedFields": [{"manager": "x"}]}, id="the server's bookkeeping changed"),
]


@pytest.mark.parametrize(("expected", "body", "metadata"), DRIFT)
async def test_a_child_that_somebody_changed_is_repaired(
    expected: bool, body: Obj, metadata: Obj, make_world: "MakeWorld"
) -> None:
    world = make_world()
    wanted = world.child("Service", "s", spec={"type": "ClusterIP"})
    await world.executor.apply(wanted)
    seen = world.there[SERVICE]
    world.there[SERVICE] = {**seen, **body, "metadata": {**seen["metadata"], "resourceVersion": "99", **metadata}}
    world.store.put(world.there[SERVICE])

    await world.executor.apply(wanted)

    assert (len(world.writes) == 2) is expected


async def test_a_child_that_was_deleted_is_made_again(make_world: "MakeWorld") -> None:
    world = make_world()
    wanted = world.child("Service", "s", spec={"type": "ClusterIP"})
    await world.executor.apply(wanted)
    assert world.store.remove(world.there.pop(SERVICE))

    await world.executor.apply(wanted)

    assert len(world.writes) == 2


async def test_only_what_is_known_to_be_ours_is_taken_back_from_others(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    for number in range(2):
        await world.executor.apply(world.child("Service", "s", spec={"type": "ClusterIP", "ports": [{"port": number}]}))
        await world.executor.apply(world.child("ConfigMap", "c", data={"a": str(number)}))

    forced = [(request.path, request.query["force"]) for request in api.seen if not world.is_look(request)]
    assert forced == [(SERVICE, "false"), (CONFIG, "false"), (SERVICE, "true"), (CONFIG, "true")]
    assert world.looks == [SERVICE, CONFIG], "only what was never seen is asked for"


@pytest.mark.parametrize(("kind", "name", "path"), [("Service", "s", SERVICE), ("ConfigMap", "c", CONFIG)])
async def test_what_was_replaced_unnoticed_is_asked_for_before_it_is_written_to(
    kind: str, name: str, path: str, make_world: "MakeWorld"
) -> None:
    world = make_world()
    await world.executor.apply(world.child(kind, name, data={"a": "1"}))
    stranger = world.child(kind, name, data={"a": "theirs"})
    world.there[path] = {
        **stranger,
        "metadata": {**stranger["metadata"], "uid": "y", **world.owned_by("Deployment", "other")},
    }
    before = world.there[path]

    with pytest.raises(ConflictError):
        await world.executor.apply(world.child(kind, name, data={"a": "2"}))
    with pytest.raises(OccupiedError, match=f"{kind} '{name}' is in the way: it belongs to Deployment 'other'"):
        await world.executor.apply(world.child(kind, name, data={"a": "2"}))

    assert world.there[path] == before


async def test_a_child_goes_by_its_uid_and_an_object_of_somebody_else_does_not_go_at_all(
    api: "Api", make_world: "MakeWorld"
) -> None:
    world = make_world()
    await world.executor.apply(world.child("ConfigMap", "c"))
    api.answers["DELETE", CONFIG] = api.answers["DELETE", SERVICE] = (200, {})

    gone = (ChildRef("v1", "ConfigMap", "c"), ChildRef("v1", "Service", "s"))
    await world.executor.execute(world.live, Plan(delete=gone))

    (deletion,) = [request for request in api.seen if request.method == "DELETE"]
    assert (deletion.path, deletion.body["preconditions"]) == (CONFIG, {"uid": world.there[CONFIG]["metadata"]["uid"]})


async def test_an_event_in_a_namespace_that_goes_away_is_no_news(
    api: "Api", make_world: "MakeWorld", caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    refusal = "events is forbidden: unable to create new content in namespace ns because it is being terminated"
    for message in (refusal, "no"):
        api.answers["POST", EVENTS] = (403, {"message": message})
        await world.executor.record(world.live, EventSpec("Normal", "Scanned", message))

    assert [record.getMessage().partition(",")[0] for record in caplog.records] == ["Event Scanned about mine"]
    assert "terminated" not in caplog.text


async def test_what_is_to_be_done_after_the_end_of_a_namespace_is_told_in_the_log(
    api: "Api", make_world: "MakeWorld", caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    api.answers["POST", EVENTS] = (403, {"message": "because it is being terminated"})

    await world.executor.record(world.live, EventSpec("Warning", "PurgeFailed", "Remove s3://x by hand."))

    assert "mine: Remove s3://x by hand." in caplog.text


async def test_a_child_that_is_not_watched_is_applied_again_after_a_while(make_world: "MakeWorld") -> None:
    world = make_world()
    wanted = world.child("ConfigMap", "c", data={"a": "b"})
    for world.now in (0.0, 300.0, 700.0):
        await world.executor.apply(wanted)

    assert len(world.writes) == 2
    assert len(world.looks) == 1


async def test_an_event_that_is_refused_holds_nothing_up(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    api.answers["POST", EVENTS] = (422, {"message": "Event is invalid"})

    await world.executor.execute(
        world.live, Plan(status=ProjectStatus(phase="Ready"), events=(EventSpec("Normal", "Scanned", "x"),))
    )

    assert world.live["status"]["phase"] == "Ready"


async def test_a_project_that_changed_meanwhile_is_looked_at_again(make_world: "MakeWorld") -> None:
    world = make_world()
    stale = world.live
    world.live = {**world.live, "metadata": {**world.live["metadata"], "resourceVersion": "5"}}

    with pytest.raises(ConflictError):
        await world.executor.execute(stale, Plan(status=ProjectStatus(phase="Ready")))


async def test_a_plan_without_content_writes_nothing(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()

    await world.executor.execute(world.live, Plan())

    assert api.seen == []


async def test_a_child_whose_end_nobody_told_is_forgotten_when_its_deletion_finds_nothing(
    make_world: "MakeWorld",
) -> None:
    world = make_world()
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "ns", "uid": "u7"}}
    world.store.put(job)

    await world.executor.execute(world.live, Plan(delete=(ChildRef("batch/v1", "Job", "j", "u7"),)))

    assert world.store.get(JOB, "ns", "j") is None
    assert world.woken == ["Job j"]


async def test_a_resource_without_its_last_finalizer_is_known_to_be_let_go(make_world: "MakeWorld") -> None:
    """The API server answers with the version that was before, as it stores nothing; the end itself is told later."""
    held = {"deletionTimestamp": "2026-11-24T10:00:00Z", "finalizers": ["codetune.dev/artifacts"]}
    world = make_world(**held)

    await world.executor.execute(world.live, Plan(finalizer="Remove"))

    known = world.store.get(PROJECT, "ns", "mine")
    assert known is not None
    assert (known["metadata"]["finalizers"], known["metadata"]["resourceVersion"]) == ([], "1")
    assert world.woken == ["Project mine"]
    assert world.store.remove(known)
