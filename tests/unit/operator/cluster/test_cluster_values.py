"""The pure parts of the I/O layer: what refusals mean, merge patches, paths, lines, the store, and who is woken."""

import json
from typing import Any

import pytest
from codetune_api.common import Condition
from codetune_operator.cluster.following import LINE_LIMIT, split_lines
from codetune_operator.cluster.kinds import EVENT, JOB, NODE, POD, kind_of
from codetune_operator.cluster.listing import Listing
from codetune_operator.cluster.patching import build_merge_patch
from codetune_operator.cluster.refusals import translate_refusal
from codetune_operator.errors import (
    ConflictError,
    ForbiddenError,
    InvalidObjectError,
    MissingError,
    NamespaceTerminatingError,
    OccupiedError,
    PermanentError,
    TemporaryError,
)
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.waking import concerned, node_offer
from codetune_operator.reconcile import conditions
from codetune_operator.reconcile.durations import parse_time
from hypothesis import given
from hypothesis import strategies as st

Obj = dict[str, Any]

UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the "
    "existing errors to complete validation"
)
CANNOT = 'secrets is forbidden: User "x" cannot list resource "secrets" in API group ""'
REFUSALS = [
    pytest.param(
        ForbiddenError, 403, {"message": CANNOT}, "the Helm chart; if its value `watchNamespaces`", id="a right"
    ),
    pytest.param(
        PermanentError, 403, {"message": "pods is forbidden: exceeded quota: q"}, "ResourceQuota", id="a quota"
    ),
    pytest.param(ForbiddenError, 403, {"message": "denied by policy p"}, "policy p", id="a policy"),
    pytest.param(
        NamespaceTerminatingError,
        403,
        {"message": "forbidden", "details": {"causes": [{"reason": "NamespaceTerminating"}]}},
        "forbidden",
        id="the namespace goes away, by its cause",
    ),
    pytest.param(
        NamespaceTerminatingError,
        403,
        {"message": "unable to create new content in namespace ns because it is being terminated"},
        "ns",
        id="the namespace goes away, by its words",
    ),
    pytest.param(MissingError, 404, {"message": "not found"}, "not found", id="missing"),
    pytest.param(ConflictError, 409, {"message": "modified"}, "modified", id="conflict"),
    pytest.param(
        OccupiedError,
        409,
        {
            "message": "Apply failed",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".spec.ports"}]},
        },
        "not Codetune's",
        id="somebody else's object",
    ),
    pytest.param(
        ConflictError,
        422,
        {"message": "metadata.uid: field is immutable", "details": {"causes": [{"field": "metadata.uid"}]}},
        "metadata.uid",
        id="another object is in its place",
    ),
    pytest.param(InvalidObjectError, 422, {"message": "spec.x: Invalid"}, "spec.x", id="invalid"),
    pytest.param(
        InvalidObjectError,
        422,
        {
            "message": f'X "x" is invalid: [spec.x: Required value, {UNCHECKED}]',
            "details": {"causes": [{"field": "spec.x"}, {"field": "<nil>"}]},
        },
        'X "x" is invalid: spec.x: Required value',
        id="invalid, and rules that were not looked at",
    ),
    pytest.param(
        InvalidObjectError,
        500,
        {"message": "failed to create typed patch object (ns/j; batch/v1, Kind=Job): .spec.x: field not declared"},
        ".spec.x: field not declared",
        id="a field that the kind does not have",
    ),
    pytest.param(TemporaryError, 401, {"message": "Unauthorized"}, "401", id="a token that ran out"),
    pytest.param(TemporaryError, 429, {"message": "too many"}, "429", id="too many requests"),
    pytest.param(TemporaryError, 500, "oops", "500", id="broken, and no JSON object"),
]


@pytest.mark.parametrize(("expected", "code", "answer", "words"), REFUSALS)
def test_each_refusal_has_its_meaning(expected: type[Exception], code: int, answer: Any, words: str) -> None:
    error = translate_refusal(code, json.dumps(answer).encode(), "PATCH /api/v1/x")

    assert type(error) is expected
    assert words in str(error)
    assert "PATCH /api/v1/x" in str(error)


def test_a_long_answer_is_cut() -> None:
    assert len(str(translate_refusal(500, b"<html>" + b"x" * 100_000, "GET /x"))) < 1200


LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2) | st.lists(st.integers(0, 2))
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES.filter(lambda leaf: leaf is not None), max_size=3),
    lambda nested: st.dictionaries(st.sampled_from("abc"), nested, max_size=3),
    max_leaves=8,
)


@given(before=OBJECTS, after=OBJECTS)
def test_a_merge_patch_turns_one_object_into_the_other(before: Obj, after: Obj) -> None:
    patch = build_merge_patch(before, after)

    assert merge(before, patch) == after
    assert build_merge_patch(after, after) == {}


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


PATHS = [
    pytest.param("/api/v1/namespaces/ns/pods/p/log", POD.path("ns", "p", "log"), id="core"),
    pytest.param("/apis/batch/v1/namespaces/ns/jobs", JOB.path("ns"), id="group"),
    pytest.param("/apis/batch/v1/jobs", JOB.path(), id="all namespaces"),
    pytest.param("/api/v1/nodes/n", NODE.path("ns", "n"), id="no namespace"),
    pytest.param("/api/v1/namespaces/ns/events/a%2Fb", EVENT.path("ns", "a/b"), id="quoted"),
]


@pytest.mark.parametrize(("expected", "path"), PATHS)
def test_paths_are_those_of_the_api_server(expected: str, path: str) -> None:
    assert path == expected


def test_kinds_are_found_by_their_type() -> None:
    assert kind_of("batch/v1", "Job") == JOB


LINES = [
    pytest.param([b"a", b"b"], [b"a\nb\n"], id="whole"),
    pytest.param([b"ab", b"c"], [b"a", b"b\nc"], id="across pieces, the last without its end"),
    pytest.param([b"", b"a"], [b"\na"], id="empty"),
    pytest.param([b"b"], [b"x" * (LINE_LIMIT + 1), b"y\nb\n"], id="too long"),
    pytest.param([], [b"x" * (LINE_LIMIT + 1)], id="too long to the end"),
]


@pytest.mark.parametrize(("expected", "pieces"), LINES)
def test_pieces_become_lines(expected: list[bytes], pieces: list[bytes]) -> None:
    assert list(split_lines(iter(pieces))) == expected


def make(
    kind: str, name: str = "a", version: str = "1", *, uid: str = "", labels: Obj | None = None, **more: Any
) -> Obj:
    metadata = {
        "name": name,
        "namespace": more.pop("namespace", "ns"),
        "uid": uid or f"{kind}-{name}",
        "resourceVersion": version,
        "labels": labels or {},
    }
    return {"kind": kind, "metadata": metadata, **more}


def test_the_store_keeps_the_newest_version() -> None:
    store = Store()

    news = [store.put(make("Job", version=version)) for version in ("9", "10", "9", "10")]

    assert news == [True, True, False, False]
    assert store.get(JOB, "ns", "a") == make("Job", version="10")


def test_the_store_forgets_the_very_object_only() -> None:
    store = Store()
    store.put(make("Job", uid="new", version="5"))

    assert not store.remove(make("Job", uid="old", version="3"))
    assert store.remove(make("Job", uid="new", version="6"))
    assert not store.remove(make("Job", uid="new", version="6"))


def test_the_store_selects_by_namespace_and_label() -> None:
    store = Store()
    for obj in (
        make("Job", "b", labels={"x": "1"}),
        make("Job", "a", labels={"x": "1", "y": "2"}),
        make("Job", "c", labels={"x": "2"}),
        make("Job", "d", labels={"x": "1"}, namespace="other"),
        make("Pod", "e", labels={"x": "1"}),
    ):
        store.put(obj)

    assert [obj["metadata"]["name"] for obj in store.select(JOB, "ns", {"x": "1"})] == ["a", "b"]
    assert len(store.everything(JOB)) == 4


def test_a_full_list_brings_what_was_missed() -> None:
    store = Store()
    for obj in (
        make("Job", "gone", "3"),
        make("Job", "old", "3"),
        make("Job", "made-after-the-list", "30"),
        make("Job", "elsewhere", "3", namespace="other"),
    ):
        store.put(obj)

    changed = store.compare(JOB, Listing((make("Job", "old", "5"), make("Job", "new", "6")), "20"), ["ns"])

    assert [obj["metadata"]["name"] for obj in changed] == ["gone", "old", "new"]
    assert sorted(obj["metadata"]["name"] for obj in store.everything(JOB)) == [
        "elsewhere",
        "made-after-the-list",
        "new",
        "old",
    ]


SERVICE_KEY = "Store codetune-store"
STORE_LABELS = {"app.kubernetes.io/component": "store-service"}
WAKING = [
    pytest.param(
        {"Project a", "FineTune run", "Team shop", SERVICE_KEY},
        make("Project"),
        id="a project, the runs on it, its team",
    ),
    pytest.param(
        {"FineTune run", "ModelDeployment srv", SERVICE_KEY}, make("FineTune", "run"), id="a run and who serves it"
    ),
    pytest.param({"FineTune other", SERVICE_KEY}, make("FineTune", "other"), id="a run that nobody serves"),
    pytest.param({SERVICE_KEY}, make("Deployment", "codetune-store", labels=STORE_LABELS), id="the store service"),
    pytest.param(set(), make("Pod", "codetune-store-1", labels=STORE_LABELS), id="a pod of the store service"),
    pytest.param({"Project a"}, make("Pod", labels={"codetune.dev/project": "a"}), id="a child by its label"),
    pytest.param(set(), make("Pod", labels={"app": "x"}), id="a stranger's pod"),
    pytest.param({"FineTune run", "Team web"}, make("Node", "n", namespace=""), id="a node: who found no room"),
    pytest.param(
        {"ModelDeployment srv", "Team shop"}, make("ModelDeployment", "srv"), id="a deployment and whose default it is"
    ),
    pytest.param(
        {"ModelDeployment big", "Team shop", "Team web"},
        make("ModelDeployment", "big"),
        id="a deployment and in whose projects it completes",
    ),
    pytest.param({"Team web"}, make("Team", "web"), id="a team"),
    pytest.param({"Team web"}, make("Pod", labels={"codetune.dev/team": "web"}), id="a pod of a gateway"),
    pytest.param(
        {"Project a", "FineTune run", "FineTune other", "ModelDeployment srv"},
        make("PersistentVolumeClaim", "codetune-artifacts"),
        id="the store: its namespace",
    ),
]


def completes(deployment: str) -> Obj:
    return {"deploymentRef": {"name": deployment}}


@pytest.mark.parametrize(("expected", "changed"), WAKING)
def test_a_change_wakes_whom_it_concerns(expected: set[str], changed: Obj) -> None:
    store = Store()
    waiting = {"failure": {"reason": "Unschedulable"}}
    for obj in (
        make("Project"),
        make("FineTune", "run", spec={"projectRef": {"name": "a"}}, status=waiting),
        make("FineTune", "other", spec={"projectRef": {"name": "b"}}),
        make("FineTune", "far", spec={"projectRef": {"name": "a"}}, namespace="other"),
        make("ModelDeployment", "srv", spec={"adapters": [{"fineTuneRef": {"name": "run"}}, {"uri": "pvc://x/y"}]}),
        make(
            "Team",
            "shop",
            spec={
                "completionModel": completes("srv"),
                "projects": [
                    {"projectRef": {"name": "a"}},
                    {"projectRef": {"name": "b"}, "completionModel": completes("big")},
                ],
            },
        ),
        make(
            "Team",
            "web",
            spec={"projects": [{"projectRef": {"name": "c"}, "completionModel": completes("big")}]},
            status=waiting,
        ),
        make("Team", "far", spec={"completionModel": completes("srv")}, namespace="other"),
    ):
        store.put(obj)

    assert {f"{key.kind} {key.name}" for key in concerned(changed, store)} == expected


def test_a_heartbeat_of_a_node_is_no_news() -> None:
    def node(heartbeat: str, gpus: str = "1") -> Obj:
        ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat}
        return {"status": {"allocatable": {"nvidia.com/gpu": gpus}, "conditions": [ready]}}

    assert node_offer(node("1")) == node_offer(node("2"))
    assert node_offer(node("1")) != node_offer(node("1", gpus="8"))


NOW = parse_time("2026-11-23T10:00:00Z")
OLD = Condition(type="Ready", status="False", reason="Old", last_transition_time="2026-11-23T09:00:00Z")
TRANSITIONS = [
    pytest.param("2026-11-23T09:00:00Z", conditions.reconciling("New", "m"), id="same status: the time stays"),
    pytest.param("2026-11-23T10:00:00Z", conditions.ready("New", "m"), id="another status: now"),
]


@pytest.mark.parametrize(("expected", "wanted"), TRANSITIONS)
def test_the_transition_time_moves_with_the_status_only(expected: str, wanted: conditions.Wanted) -> None:
    updated = conditions.update([OLD], wanted, 4, NOW)

    assert updated[0].last_transition_time == expected
    assert (updated[0].reason, updated[0].observed_generation) == ("New", 4)


def test_abnormal_conditions_go_when_they_are_over() -> None:
    stuck = conditions.update([], conditions.stalled("Broken", "m"), 1, NOW)
    mended = conditions.update(stuck, conditions.ready("Fine", "m"), 2, NOW)

    assert [condition.type for condition in stuck] == ["Ready", "Stalled"]
    assert [condition.type for condition in mended] == ["Ready"]
