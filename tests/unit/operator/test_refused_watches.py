"""What becomes of the operator where it may not watch any more. kopf is real, the API server is faked."""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import kopf
import pytest
from codetune_operator.cluster.kinds import NAMESPACE, NODE, SECRET, Kind
from codetune_operator.errors import ForbiddenError
from codetune_operator.handlers.watching import WATCHED
from codetune_operator.main import _build_kopf_settings, run
from codetune_operator.settings import Settings

if TYPE_CHECKING:
    from unit.operator.conftest import Api, Request

Obj = dict[str, Any]
Answer = Callable[["Request"], tuple[int, Any]]
SETTINGS = Settings(namespace="system", namespaces=["a", "b"])
KINDS = [kind for kind in WATCHED if kind != NODE]
CANNOT = (403, {"message": 'User "x" cannot watch resource "projects" in the namespace "b"', "code": 403})
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
def named(api: "Api") -> "Api":
    """An API server with two namespaces that are empty."""
    api.answers["GET", SECRET.path("system", "codetune-operator-key")] = (200, {"data": {"key": "a2V5"}})
    # Of the last two kopf only wants to know that they are there.
    served = [
        *KINDS,
        NAMESPACE,
        Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions"),
    ]
    versions = sorted({(kind.group, kind.version) for kind in served})
    groups = [
        {"name": group, "versions": [{"version": version}], "preferredVersion": {"version": version}}
        for group, version in versions
        if group
    ]
    api.answers["GET", "/api"] = (200, {"versions": ["v1"]})
    api.answers["GET", "/apis"] = (200, {"groups": groups})
    for group, version in versions:
        resources = [describe(kind) for kind in served if (kind.group, kind.version) == (group, version)]
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        api.answers["GET", path] = (200, {"resources": resources})
    for kind in KINDS:
        for namespace in SETTINGS.namespaces:
            api.answers["GET", kind.path(namespace)] = answer
    return api


def describe(kind: Kind) -> Obj:
    verbs = ["get", "list", "watch", "patch"]
    return {"name": kind.plural, "kind": kind.name, "singularName": "", "namespaced": True, "verbs": verbs}


def answer(request: "Request") -> tuple[int, Any]:
    """An empty list, or a watch that ends at once."""
    return (200, b"") if "watch" in request.query else (200, {"items": [], "metadata": {"resourceVersion": "5"}})


def refuse_watches(api: "Api", namespace: str, *, lists_too: bool) -> None:
    """The right to watch goes once everything was listed, and the right to list with it, or not."""

    def refuse(request: "Request") -> tuple[int, Any]:
        nonlocal is_gone
        is_gone = is_gone or "watch" in request.query
        return CANNOT if "watch" in request.query or (is_gone and lists_too) else answer(request)

    is_gone = False
    for kind in KINDS:
        api.answers["GET", kind.path(namespace)] = refuse


async def test_where_the_rights_in_one_namespace_go_the_others_are_watched_on(
    named: "Api", caplog: pytest.LogCaptureFixture
) -> None:
    refuse_watches(named, "b", lists_too=True)
    caplog.set_level("INFO")

    running = asyncio.create_task(run(named.connect(), SETTINGS))
    await until(lambda: "reconciles the namespaces a." in caplog.text, running)
    before = len(named.seen)
    await until(lambda: watches(named, "a", before) >= len(KINDS), running)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert "Namespace b is left out for now" in caplog.text
    assert "It is taken up again within 5 minutes after that." in caplog.text
    assert watches(named, "b", before) == 0


async def test_a_namespace_where_only_watches_are_refused_is_not_watched_at_all(
    named: "Api", caplog: pytest.LogCaptureFixture
) -> None:
    refuse_watches(named, "b", lists_too=False)
    named.answers["POST", REVIEWS] = review
    caplog.set_level("INFO")

    running = asyncio.create_task(run(named.connect(), SETTINGS))
    await until(lambda: watches(named, "a", 0) >= len(KINDS), running)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert "The operator may list jobs there, but not watch them: give the operator that right" in caplog.text
    assert watches(named, "b", 0) == 0


def test_kopf_which_ends_with_its_last_attempt_at_a_watch_has_none_where_namespaces_are_named() -> None:
    pauses = list(islice(_build_kopf_settings(SETTINGS).networking.error_backoffs, 1000))

    assert len(pauses) == 1000
    assert (pauses[0], max(pauses)) == (1, 60)
    assert _build_kopf_settings(Settings()).networking == kopf.OperatorSettings().networking


async def test_where_all_rights_go_the_operator_ends_and_says_so(named: "Api") -> None:
    for namespace in SETTINGS.namespaces:
        refuse_watches(named, namespace, lists_too=True)

    with pytest.raises(ForbiddenError, match="Helm chart"):
        await asyncio.wait_for(run(named.connect(), SETTINGS), 30)


def review(request: "Request") -> tuple[int, Obj]:
    return 201, {"status": {"allowed": request.body["spec"]["resourceAttributes"]["namespace"] != "b"}}


def watches(api: "Api", namespace: str, since: int) -> int:
    """How many kinds were watched in a namespace."""
    paths = {kind.path(namespace) for kind in KINDS}
    return len({request.path for request in api.seen[since:] if request.path in paths and "watch" in request.query})


async def until(condition: Callable[[], bool], running: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(30):
        while not condition():
            assert not running.done(), "the operator has ended"
            await asyncio.sleep(0.05)
