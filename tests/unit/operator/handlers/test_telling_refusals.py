"""What a person reads when nothing can be done about a resource, and what lets go all the same."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.finetune import FineTune
from codetune_api.project import Project
from codetune_operator.cluster.kinds import CONFIGMAP, kind_of
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.reconciling import LEFTOVER_SECONDS, OCCUPIED_SECONDS, REFUSED_SECONDS
from codetune_operator.reconcile.conditions import stalled
from codetune_operator.reconcile.project import reconcile as reconcile_project
from codetune_operator.reconcile.refusals import forget_refusal, refuse, tell_refusal
from codetune_operator.resources.purge import purge_job_name
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Api, MakeWorld, Request, World

Obj = dict[str, Any]
BASE = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine"
CLAIM = "/api/v1/namespaces/ns/persistentvolumeclaims/codetune-artifacts"
KEY = Key("Project", "ns", "mine")


IN_THE_WAY = [
    pytest.param({}, "'codetune-artifacts' is in the way: somebody else made it.", id="nobody's"),
    pytest.param({"owner": ("Deployment", "x")}, "is in the way: it belongs to Deployment 'x'.", id="somebody's"),
]


@pytest.mark.parametrize(("given", "words"), IN_THE_WAY)
async def test_an_object_of_somebody_else_is_left_and_the_resource_says_so(
    given: Obj, words: str, api: "Api", make_world: "MakeWorld"
) -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"])
    owners = world.owned_by(*given["owner"]) if given else {}
    api.answers["GET", CLAIM] = (200, {"metadata": {"name": "codetune-artifacts", "uid": "y", **owners}})

    assert await world.reconciler.look(KEY) == OCCUPIED_SECONDS

    assert (world.ready()["reason"], world.stalled()) == ("NameTaken", True)
    assert (
        f"{words} Delete it, or give this Project another name; it goes on by itself then." in world.ready()["message"]
    )
    assert world.live["status"]["failure"]["reason"] == "NameTaken"
    assert words in world.live["status"]["failure"]["message"]
    assert world.live["status"]["failure"]["hint"].startswith("Delete it, or give this Project another name")
    assert world.writes == [f"PATCH {BASE}/status"]


async def test_what_an_earlier_resource_of_this_name_left_is_waited_for(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"])
    world.store.put({"kind": "PersistentVolumeClaim", "metadata": claim_metadata()})
    scan, _ = build_scan_children(world)
    earlier = {"metadata": {**scan["metadata"], "uid": "y", **world.owned_by("Project", "mine", "u0")}}
    api.answers["PATCH", CONFIGMAP.path("ns", scan["metadata"]["name"])] = (200, earlier)

    assert await world.reconciler.look(KEY) == LEFTOVER_SECONDS

    assert (world.ready()["reason"], world.stalled()) == ("NameTaken", False)
    assert "was made for an earlier Project 'mine', and is removed with that" in world.ready()["message"]


async def test_who_is_faster_to_make_an_object_keeps_it(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"])
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "helm" using v1', "field": ".spec.resources"}
    api.answers["PATCH", CLAIM] = (409, {"message": "Apply failed with 1 conflict", "details": {"causes": [cause]}})

    assert await world.reconciler.look(KEY) == OCCUPIED_SECONDS

    assert world.ready()["reason"] == "NameTaken"
    assert "not Codetune's. Delete it, or give this Project another name" in world.ready()["message"]


async def test_a_resource_that_can_not_be_read_says_so_and_is_left(make_world: "MakeWorld") -> None:
    world = make_world()
    broken = {**world.live, "spec": {"sources": [{"name": "Not A Name"}]}}
    world.store.remove(broken)
    world.store.put(broken)

    assert await world.reconciler.look(KEY) is None

    assert world.ready()["reason"] == "InvalidSpec"
    assert "spec.sources.0.name" in world.ready()["message"]
    assert world.live["status"]["failure"]["reason"] == "InvalidSpec"
    assert "spec.sources.0.name" in world.live["status"]["failure"]["message"]
    assert world.live["status"]["failure"]["hint"] == "Correct it and apply it again."
    assert world.live["status"]["observedGeneration"] == world.live["metadata"]["generation"]
    assert world.writes == [f"PATCH {BASE}/status"]


async def test_a_team_that_can_not_be_read_says_so_too(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    path = "/apis/codetune.dev/v1alpha1/namespaces/ns/teams/mine/status"
    api.answers["PATCH", path] = api.answers["PATCH", f"{BASE}/status"]
    world.live = {**world.live, "kind": "Team", "spec": {"projects": [{}]}}
    world.store.put(world.live)

    assert await world.reconciler.look(Key("Team", "ns", "mine")) is None

    assert (world.ready()["reason"], world.stalled()) == ("InvalidSpec", True)
    assert "spec.apiKeysSecretRef" in world.ready()["message"]
    assert world.writes == [f"PATCH {path}"]


async def test_a_resource_that_can_not_be_read_can_still_be_deleted(make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"], deletionTimestamp="2026-11-23T10:00:00Z")
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
    reason: str, code: int, message: str, words: str, api: "Api", make_world: "MakeWorld"
) -> None:
    world = make_world()
    api.answers["PATCH", CLAIM] = (code, {"message": message})

    assert await world.reconciler.look(KEY) == REFUSED_SECONDS

    assert world.ready()["reason"] == reason
    assert words in world.ready()["message"]
    assert world.live["status"]["failure"]["reason"] == reason
    assert words in world.live["status"]["failure"]["message"]
    assert "tried again within 5 minutes" in world.live["status"]["failure"]["hint"]


async def test_a_refusal_is_forgotten_once_it_is_over(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"])
    api.answers["PATCH", CLAIM] = (403, {"message": "exceeded quota: storage"})
    await world.reconciler.look(KEY)
    refused = world.live["status"]["failure"]["reason"]

    for path in (CLAIM, *map(child_path, build_scan_children(world))):
        api.answers["PATCH", path] = make_child
    await world.reconciler.look(KEY)

    assert refused == "Refused"
    assert world.ready()["reason"] == "ScanStarted"
    assert world.live["status"]["failure"] is None


RAN = [
    pytest.param(
        {"phase": "Failed", "failure": {"reason": "EmptyDataset", "message": "No."}}, "EmptyDataset", id="failed"
    ),
    pytest.param({"phase": "Ready"}, "Refused", id="went well"),
    pytest.param({"phase": "Scanning", "failure": {"reason": "Evicted", "message": "No."}}, "Refused", id="goes on"),
]


@pytest.mark.parametrize(("status", "told"), RAN)
def test_a_refusal_takes_the_place_of_no_failure_that_later_looks_go_by(status: Obj, told: str) -> None:
    failure = refuse("Refused", "No.", "Mend it.")

    refused = tell_refusal(status, stalled("Refused", "No."), failure, 1, datetime.now(UTC))

    assert refused["failure"]["reason"] == told
    assert refused["phase"] == status["phase"]


def test_what_a_run_came_to_is_seen_through_a_refusal() -> None:
    status = {"phase": "Succeeded", "failure": {"reason": "NameTaken", "message": "No."}}
    finetune = FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": {"name": "mine", "namespace": "ns"},
            "spec": {"projectRef": {"name": "app"}, "baseModel": "hf://org/model"},
            "status": status,
        }
    )

    assert forget_refusal(finetune).status.failure is None
    assert forget_refusal(finetune).status.phase == "Succeeded"


async def test_a_project_lets_go_when_its_namespace_goes_away(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"], deletionTimestamp="2026-11-23T10:00:00Z")
    world.store.put(world.child("PersistentVolumeClaim", "codetune-artifacts") | {"metadata": claim_metadata()})
    refused = (403, {"message": "forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}})
    job = purge_job_name(Project.from_wire(world.live))
    for kind in ("configmaps", "jobs"):
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        api.answers["PATCH", f"{group}/namespaces/ns/{kind}/{job}"] = refused

    assert await world.reconciler.look(KEY) == 0.0
    await world.reconciler.look(KEY)

    assert world.live["metadata"]["finalizers"] == []


ENDS = [
    pytest.param(True, (200, {"metadata": {"name": "ns", "deletionTimestamp": "t"}}), id="it goes away"),
    pytest.param(False, (200, {"metadata": {"name": "ns"}}), id="it stays"),
    pytest.param(False, (403, {"message": 'User "x" cannot get resource "namespaces"'}), id="nobody may ask"),
    pytest.param(False, (503, {"message": "later"}), id="nobody answers"),
]


@pytest.mark.parametrize(("lets_go", "namespace"), ENDS)
async def test_a_project_lets_go_of_a_namespace_that_took_the_role_away(
    lets_go: bool, namespace: tuple[int, Any], api: "Api", make_world: "MakeWorld"
) -> None:
    world = make_world(finalizers=["codetune.dev/artifacts"], deletionTimestamp="2026-11-23T10:00:00Z")
    world.store.put({"kind": "PersistentVolumeClaim", "metadata": claim_metadata()})
    job = {"name": "mine-scan-1", "namespace": "ns", "uid": "j1", "labels": {"codetune.dev/project": "mine"}}
    world.store.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": job})
    cannot = (403, {"message": 'User "x" cannot delete resource "jobs"'})
    api.answers["DELETE", "/apis/batch/v1/namespaces/ns/jobs/mine-scan-1"] = cannot
    api.answers["GET", "/api/v1/namespaces/ns"] = namespace

    assert await world.reconciler.look(KEY) == (0.0 if lets_go else REFUSED_SECONDS)
    await world.reconciler.look(KEY)

    assert (world.live["metadata"]["finalizers"] == []) is lets_go


async def test_nothing_is_done_about_what_is_gone(api: "Api", make_world: "MakeWorld") -> None:
    world = make_world()
    world.store.remove(world.live)

    assert await world.reconciler.look(KEY) is None
    assert api.seen == []


def build_scan_children(world: "World") -> tuple[Obj, ...]:
    view = world.observer.view_project(world.live)
    return reconcile_project(view, Settings(), datetime.now(UTC)).apply


def claim_metadata() -> Obj:
    return {"name": "codetune-artifacts", "namespace": "ns", "uid": "c1", "resourceVersion": "1"}


def child_path(child: Obj) -> str:
    return kind_of(child["apiVersion"], child["kind"]).path("ns", child["metadata"]["name"])


def make_child(request: "Request") -> tuple[int, Obj]:
    """As the server does with what is not there yet."""
    if "metadata" not in request.body:
        return 404, {"message": "not found"}
    return 200, {**request.body, "metadata": {**request.body["metadata"], "uid": "n", "resourceVersion": "1"}}
