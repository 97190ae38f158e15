"""The verbs of the cluster package, against an API server that is faked at the transport."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DesiredAdapters, ServerReport
from codetune_api.protocol import StageEvent, render
from codetune_operator.cluster.applying import apply
from codetune_operator.cluster.connecting import Cluster, connect
from codetune_operator.cluster.deleting import delete
from codetune_operator.cluster.eventing import EventRecorder
from codetune_operator.cluster.following import read_log
from codetune_operator.cluster.keys import load_operator_key
from codetune_operator.cluster.kinds import JOB
from codetune_operator.cluster.listing import list_objects
from codetune_operator.cluster.patching import patch_status
from codetune_operator.cluster.pushing import push_adapters
from codetune_operator.errors import (
    ConflictError,
    MissingError,
    OperatorError,
    PermanentError,
    SettingsError,
    TemporaryError,
)
from codetune_operator.handlers import tracking
from codetune_operator.handlers.keys import Key
from codetune_operator.handlers.tracking import LogTracker
from codetune_operator.reconcile.plan import AdapterPush, ChildRef, EventSpec, Follow
from codetune_operator.runs.report import RunReport
from kubernetes.client import ApiClient, Configuration

if TYPE_CHECKING:
    from unit.operator.conftest import Api, Request

Obj = dict[str, Any]
CLAIM_PATH = "/api/v1/namespaces/ns/persistentvolumeclaims/c"
ABOUT: Obj = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "Project",
    "metadata": {"name": "mine", "namespace": "ns", "uid": "u1", "resourceVersion": "7"},
}


@pytest.mark.parametrize(
    ("force", "uid"),
    [pytest.param("true", "u9", id="what is there"), pytest.param("false", None, id="nothing is there")],
)
async def test_apply_is_server_side_with_our_field_manager(api: "Api", force: str, uid: str | None) -> None:
    api.answers["PATCH", CLAIM_PATH] = (200, {"kind": "PersistentVolumeClaim"})
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "ns"},
    }

    assert await apply(api.connect(), obj=claim, uid=uid) == {"kind": "PersistentVolumeClaim"}

    (request,) = api.seen
    assert request.query == {"fieldManager": "codetune", "force": force}
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert request.headers["authorization"] == "Bearer secret-token"
    assert request.body["metadata"].pop("uid", None) == uid
    assert request.body == claim


async def test_a_job_is_deleted_after_its_pods(api: "Api") -> None:
    api.answers["DELETE", "/apis/batch/v1/namespaces/ns/jobs/j"] = (200, {})

    assert await delete(api.connect(), namespace="ns", child=ChildRef("batch/v1", "Job", "j", "u9"))

    assert api.seen[0].body["preconditions"] == {"uid": "u9"}
    assert api.seen[0].body["propagationPolicy"] == "Foreground"


@pytest.mark.parametrize("status", [pytest.param(404, id="gone"), pytest.param(409, id="another object by now")])
async def test_what_is_not_there_any_more_is_deleted(status: int, api: "Api") -> None:
    api.answers["DELETE", "/api/v1/namespaces/ns/configmaps/x"] = (status, {"message": "no"})

    assert not await delete(api.connect(), namespace="ns", child=ChildRef("v1", "ConfigMap", "x"))


async def test_lists_are_read_page_by_page_and_entries_get_their_type(api: "Api") -> None:
    def page(request: "Request") -> tuple[int, Any]:
        last = request.query.get("continue") == "more"
        metadata = {"resourceVersion": "9", **({} if last else {"continue": "more"})}
        return 200, {"metadata": metadata, "items": [{"metadata": {"name": "b" if last else "a"}}]}

    api.answers["GET", "/apis/batch/v1/jobs"] = page

    listing = await list_objects(api.connect(), kind=JOB, labels="x=y", fields="metadata.name=a")

    assert [(item["kind"], item["metadata"]["name"]) for item in listing.items] == [("Job", "a"), ("Job", "b")]
    assert listing.resource_version == "9"
    queries = [(request.query["labelSelector"], request.query["fieldSelector"]) for request in api.seen]
    assert queries == [("x=y", "metadata.name=a")] * 2


async def test_a_status_is_written_only_when_it_differs_and_only_over_what_was_seen(api: "Api") -> None:
    path = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine/status"
    api.answers["PATCH", path] = (200, {"new": True})
    live = {**ABOUT, "status": {"phase": "Ready", "failure": {"reason": "x"}}}

    assert await patch_status(api.connect(), live=live, status=live["status"]) is None
    assert await patch_status(api.connect(), live=live, status={"phase": "Ready"}) == {"new": True}

    (request,) = api.seen
    assert request.body == {"metadata": {"resourceVersion": "7"}, "status": {"failure": None}}
    assert request.headers["content-type"] == "application/merge-patch+json"


async def test_a_status_of_an_object_that_changed_meanwhile_is_a_conflict(api: "Api") -> None:
    path = "/apis/codetune.dev/v1alpha1/namespaces/ns/projects/mine/status"
    api.answers["PATCH", path] = (409, {"message": "the object has been modified"})

    with pytest.raises(ConflictError, match="has been modified"):
        await patch_status(api.connect(), live=ABOUT, status={"phase": "Ready"})


async def test_a_server_that_can_not_be_reached_is_temporary() -> None:
    nobody = Cluster(ApiClient(Configuration(host="http://127.0.0.1:1")))

    with pytest.raises(TemporaryError, match="can't be reached"):
        await list_objects(nobody, kind=JOB)


async def test_the_operator_key_is_made_once(api: "Api") -> None:
    path = "/api/v1/namespaces/tools/secrets"
    stored: list[Obj] = []

    def create(request: "Request") -> tuple[int, Any]:
        stored.append(request.body)
        api.answers["GET", f"{path}/codetune-operator-key"] = (200, request.body)
        return 201, request.body

    api.answers["POST", path] = create

    first = await load_operator_key(api.connect(), namespace="tools")
    second = await load_operator_key(api.connect(), namespace="tools")

    assert len(first) == 32
    assert first == second
    assert len(stored) == 1


async def test_the_key_of_a_faster_process_is_taken(api: "Api") -> None:
    path = "/api/v1/namespaces/tools/secrets"

    def refuse(request: "Request") -> tuple[int, Any]:
        api.answers["GET", f"{path}/codetune-operator-key"] = (200, {"data": {"key": "c2hhcmVk"}})
        return 409, {"message": "exists"}

    api.answers["POST", path] = refuse

    assert await load_operator_key(api.connect(), namespace="tools") == b"shared"


async def test_a_key_secret_without_a_key_says_how_to_mend_it(api: "Api") -> None:
    api.answers["GET", "/api/v1/namespaces/tools/secrets/codetune-operator-key"] = (200, {"data": {}})

    with pytest.raises(PermanentError, match="delete it"):
        await load_operator_key(api.connect(), namespace="tools")


async def test_the_same_event_again_raises_its_count(api: "Api") -> None:
    def patched(request: "Request") -> tuple[int, Any]:
        return 200, {}

    def create(request: "Request") -> tuple[int, Any]:
        api.answers["PATCH", f"/api/v1/namespaces/ns/events/{request.body['metadata']['name']}"] = patched
        return 201, {}

    api.answers["POST", "/api/v1/namespaces/ns/events"] = create
    recorder = EventRecorder(api.connect(), clock=lambda: datetime(2026, 11, 23, tzinfo=UTC))
    told = EventSpec("Warning", "EmptyDataset", "No file.")

    await recorder.record(about=ABOUT, event=told)
    await recorder.record(about=ABOUT, event=told)
    await recorder.record(about=ABOUT, event=EventSpec("Normal", "Scanned", "Done."))

    assert [request.method for request in api.seen] == ["POST", "PATCH", "POST"]
    assert api.seen[0].body["involvedObject"]["uid"] == "u1"
    assert api.seen[0].body["count"] == 1
    assert api.seen[1].body == {"count": 2, "lastTimestamp": "2026-11-23T00:00:00Z"}


async def test_an_event_that_the_server_forgot_is_told_anew(api: "Api") -> None:
    api.answers["POST", "/api/v1/namespaces/ns/events"] = (201, {})
    recorder = EventRecorder(api.connect())
    told = EventSpec("Normal", "Scanned", "Done.")

    await recorder.record(about=ABOUT, event=told)
    await recorder.record(about=ABOUT, event=told)

    assert [request.method for request in api.seen] == ["POST", "PATCH", "POST"]
    assert api.seen[2].body["count"] == 1


LOG = "/api/v1/namespaces/ns/pods/p/log"


def test_log_lines_come_with_their_times(api: "Api") -> None:
    api.answers["GET", LOG] = (200, b"2026-11-23T10:00:00.5Z one two\n2026-11-23T10:00:01Z \xff\nno newline")

    lines = list(
        read_log(api.connect(), namespace="ns", pod="p", container="scan", since="2026-11-23T10:00:00Z", follow=True)
    )

    assert lines == [("2026-11-23T10:00:00.5Z", "one two"), ("2026-11-23T10:00:01Z", "�"), ("no", "newline")]
    assert api.seen[0].query == {
        "container": "scan",
        "timestamps": "true",
        "sinceTime": "2026-11-23T10:00:00Z",
        "follow": "true",
    }


def test_the_log_of_a_pod_that_is_gone_is_missing(api: "Api") -> None:
    with pytest.raises(MissingError):
        list(read_log(api.connect(), namespace="ns", pod="p", container="scan", since=None, follow=False))


NONCE = "n" * 32


async def test_logs_are_folded_into_a_report_and_wake_their_owner(api: "Api") -> None:
    stage = render(StageEvent(stage="Cloning"), NONCE)
    posing = render(StageEvent(stage="Forged"), "x" * 32)
    api.answers["GET", LOG] = (200, f"2026-11-23T10:00:00Z {stage}\n2026-11-23T10:00:01Z {posing}\n".encode())
    woken = asyncio.Event()
    tracker = LogTracker(api.connect(), lambda key: woken.set())

    key = Key("Project", "ns", "mine")
    tracker.update(key, "slot", (Follow("p", "scan", NONCE, finished=True),), RunReport())
    async with asyncio.timeout(30):
        await woken.wait()

    report = tracker.report("slot")
    assert report is not None
    assert report.stage == "Cloning"
    await tracker.close()
    assert tracker.report("slot") is None


async def test_attempts_are_read_in_their_order_and_a_lost_log_holds_nothing_up(api: "Api") -> None:
    second = render(StageEvent(stage="Second"), NONCE)
    api.answers["GET", "/api/v1/namespaces/ns/pods/p2/log"] = (200, f"2026-11-23T10:00:09Z {second}\n".encode())
    woken = asyncio.Event()
    tracker = LogTracker(api.connect(), lambda key: woken.set())
    follows = tuple(Follow(pod, "scan", NONCE, finished=True) for pod in ("p1", "p2"))

    tracker.update(Key("Project", "ns", "mine"), "slot", follows, RunReport())
    async with asyncio.timeout(30):
        while (report := tracker.report("slot")) is None or report.stage != "Second":
            await woken.wait()
            woken.clear()

        while tracker.read_logs("slot") != {("p1", "scan"), ("p2", "scan")}:
            await woken.wait()
            woken.clear()

    assert api.calls() == [("GET", f"/api/v1/namespaces/ns/pods/{pod}/log") for pod in ("p1", "p2")]
    await tracker.close()


async def test_a_stream_that_broke_off_is_picked_up_where_it_ended(api: "Api") -> None:
    lines = [f"2026-11-23T10:00:0{n}Z {render(StageEvent(stage=f's{n}'), NONCE)}\n" for n in range(3)]

    def serve(request: "Request") -> tuple[int, Any]:
        since = request.query.get("sinceTime", "")
        return 200, "".join([line for line in lines if line[:20] >= since][:2]).encode()

    api.answers["GET", LOG] = serve
    woken = asyncio.Event()
    tracker = LogTracker(api.connect(), lambda key: woken.set())

    tracker.update(Key("Project", "ns", "mine"), "slot", (Follow("p", "scan", NONCE),), RunReport())
    async with asyncio.timeout(30):
        while (report := tracker.report("slot")) is None or report.stage != "s2":
            await woken.wait()
            woken.clear()

    assert [request.query.get("sinceTime") for request in api.seen[:2]] == [None, "2026-11-23T10:00:01Z"]
    await tracker.close()


async def test_a_log_is_read_again_whatever_went_wrong_with_it(api: "Api", monkeypatch: pytest.MonkeyPatch) -> None:
    api.answers["GET", LOG] = (200, f"2026-11-23T10:00:00Z {render(StageEvent(stage='Cloning'), NONCE)}\n".encode())
    troubles: list[Exception] = [ValueError("read of closed file"), TemporaryError("It broke off.")]

    def read(*arguments: Any, **more: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return read_log(*arguments, **more)

    monkeypatch.setattr(tracking, "read_log", read)
    monkeypatch.setattr(tracking, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(tracking, "_PAUSE_SECONDS", 0.01)
    woken = asyncio.Event()
    tracker = LogTracker(api.connect(), lambda key: woken.set())

    tracker.update(Key("Project", "ns", "mine"), "slot", (Follow("p", "scan", NONCE, finished=True),), RunReport())
    async with asyncio.timeout(30):
        await woken.wait()

    report = tracker.report("slot")
    assert report is not None
    assert (report.stage, troubles) == ("Cloning", [])
    await tracker.close()


async def test_adapters_are_pushed_to_every_pod_and_each_answers_for_itself(api: "Api") -> None:
    report = ServerReport(ready=True, adapters=[], models=["base"])
    api.answers["PUT", "/good/codetune/adapters"] = (200, json.loads(report.model_dump_json(by_alias=True)))
    api.answers["PUT", "/odd/codetune/adapters"] = (200, {"what": 1})
    pods = {
        "good": f"{api.url}/good",
        "refusing": f"{api.url}/none",
        "odd": f"{api.url}/odd",
        "dead": "http://127.0.0.1:1",
    }
    push = AdapterPush(pods, DesiredAdapters(), "pass-word")

    answers = await push_adapters(push, wait_seconds=2)

    assert answers["good"] == report
    assert "HTTP 404" in str(answers["refusing"])
    assert "something else than a report" in str(answers["odd"])
    assert "failed" in str(answers["dead"])
    assert {request.headers["authorization"] for request in api.seen} == {"Bearer pass-word"}
    assert {request.query["wait"] for request in api.seen} == {"2"}
    assert "pass-word" not in repr(push)


def test_credentials_are_in_no_repr(api: "Api") -> None:
    assert "secret-token" not in repr(api.connect())


async def test_errors_carry_no_credentials(api: "Api") -> None:
    with pytest.raises(OperatorError) as caught:
        await list_objects(api.connect(), kind=JOB)

    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        pytest.param("is no good: Invalid kube-config", b"", id="empty"),
        pytest.param("is no YAML of a kubeconfig's form", b"a: [b", id="malformed"),
        pytest.param("is no YAML of a kubeconfig's form", b"- a", id="a list"),
        pytest.param("is no YAML of a kubeconfig's form", b"\xff\xfe", id="binary"),
    ],
)
def test_a_kubeconfig_that_is_none_is_told(tmp_path: Path, expected: str, content: bytes) -> None:
    (tmp_path / "config").write_bytes(content)

    with pytest.raises(SettingsError, match=expected):
        connect(tmp_path / "config")
