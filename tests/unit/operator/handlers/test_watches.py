"""What the API server is asked for: of each kind that is watched, only the objects that matter."""

import asyncio
from typing import TYPE_CHECKING

import kopf
import pytest
from codetune_operator.cluster.kinds import (
    AUTOSCALER,
    BUDGET,
    CLAIM,
    DEPLOYMENT,
    FINETUNE,
    JOB,
    MODELDEPLOYMENT,
    NETWORKPOLICY,
    NODE,
    POD,
    PROJECT,
    SERVICE,
    TEAM,
    Kind,
)
from codetune_operator.errors import ForbiddenError
from codetune_operator.handlers.resyncing import EARLY_SECONDS, Resync
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.watching import WATCHED
from codetune_operator.main import _build_kopf_settings
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Api

OURS = ["app.kubernetes.io/managed-by=codetune"]
STORE = ["metadata.name=codetune-artifacts"]

SELECTED: dict[Kind, tuple[list[str], list[str]]] = {
    JOB: (OURS, []),
    DEPLOYMENT: (OURS, []),
    SERVICE: (OURS, []),
    POD: (OURS, []),
    BUDGET: (OURS, []),
    AUTOSCALER: (OURS, []),
    NETWORKPOLICY: (OURS, []),
    # An administrator's own claim carries no label of ours.
    CLAIM: ([], STORE),
    NODE: ([], []),
    PROJECT: ([], []),
    FINETUNE: ([], []),
    MODELDEPLOYMENT: ([], []),
    TEAM: ([], []),
}
"""Kind → label and field selectors."""


def test_every_watched_kind_is_in_the_table() -> None:
    assert set(SELECTED) == set(WATCHED)


@pytest.mark.parametrize("kind", SELECTED, ids=lambda kind: kind.plural)
def test_kopf_has_the_server_select_what_is_watched(kind: Kind) -> None:
    watching = _build_kopf_settings(Settings()).watching
    resource = kopf.Resource(kind.group, kind.version, kind.plural, kind=kind.name, namespaced=kind.namespaced)

    assert (watching.label_selectors.collect(resource), watching.field_selectors.collect(resource)) == SELECTED[kind]


@pytest.mark.parametrize("name", ["namespaces", "customresourcedefinitions"])
def test_what_kopf_itself_looks_at_is_whole(name: str) -> None:
    watching = _build_kopf_settings(Settings()).watching
    group = "" if name == "namespaces" else "apiextensions.k8s.io"
    resource = kopf.Resource(group, "v1", name, namespaced=False)

    assert [*watching.label_selectors.collect(resource), *watching.field_selectors.collect(resource)] == []


def test_lists_come_in_pages() -> None:
    assert _build_kopf_settings(Settings()).watching.chunk_size == 500


async def test_the_lists_that_the_watches_are_compared_with_select_the_same(api: "Api") -> None:
    for kind in WATCHED:
        api.answers["GET", kind.path()] = (200, {"items": [], "metadata": {"resourceVersion": "5"}})

    await Resync(api.connect(), Store(), []).prime()

    asked = {request.path: request.query for request in api.seen}
    for kind, (labels, fields) in SELECTED.items():
        query = asked[kind.path()]
        assert (query.get("labelSelector", ""), query.get("fieldSelector", "")) == (",".join(labels), ",".join(fields))


@pytest.fixture
def named(api: "Api") -> "Api":
    """An API server with two namespaces that have one Project each."""
    for namespace in ("a", "b"):
        for kind in WATCHED:
            api.answers["GET", kind.path(namespace)] = (200, {"items": [], "metadata": {"resourceVersion": "5"}})
        metadata = {"name": "shop", "namespace": namespace, "uid": f"u-{namespace}", "resourceVersion": "4"}
        found = {"items": [{"metadata": metadata}], "metadata": {"resourceVersion": "5"}}
        api.answers["GET", PROJECT.path(namespace)] = (200, found)
    return api


def refuse(api: "Api", namespace: str) -> None:
    """As when the namespace was deleted with the Role in it."""
    for kind in WATCHED:
        message = f'{kind.plural} is forbidden: User "x" cannot list resource "{kind.plural}"'
        api.answers["GET", kind.path(namespace)] = (403, {"message": message})


async def test_a_named_namespace_that_is_refused_holds_up_no_other_one(
    named: "Api", caplog: pytest.LogCaptureFixture
) -> None:
    refuse(named, "b")
    resync = Resync(named.connect(), Store(), ["a", "b"])

    await resync.prime()

    assert resync.refused == {"b"}
    assert resync.store.get(PROJECT, "a", "shop") is not None
    assert [record.getMessage() for record in caplog.records if "Namespace b is left out" in record.getMessage()]


async def test_where_every_namespace_is_refused_the_operator_does_not_start(named: "Api") -> None:
    refuse(named, "a")
    refuse(named, "b")

    with pytest.raises(ForbiddenError, match="cannot list"):
        await Resync(named.connect(), Store(), ["a", "b"]).prime()


@pytest.mark.parametrize("before", [pytest.param([], id="goes away"), pytest.param(["b"], id="comes back")])
async def test_the_watches_begin_anew_when_a_namespace(before: list[str], named: "Api") -> None:
    answers = dict(named.answers)
    for namespace in before:
        refuse(named, namespace)
    rounds = 0

    async def sleep(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 2:
            assert not resync.changed.is_set()
            named.answers.update(answers)
            if not before:
                refuse(named, "b")
        elif rounds == 3:
            await asyncio.Event().wait()

    resync = Resync(named.connect(), Store(), ["a", "b"], sleep)
    await resync.prime()
    task = asyncio.create_task(resync.run(lambda obj: None))
    await asyncio.wait_for(resync.changed.wait(), 30)
    task.cancel()

    # What is known of a namespace that can't be read is not taken for gone.
    assert resync.store.get(PROJECT, "b", "shop") is not None


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
