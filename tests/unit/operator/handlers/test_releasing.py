"""A named namespace whose end took the operator's Role away: what is held in it is let go of, and nothing else."""

from typing import TYPE_CHECKING, Any

import pytest
from codetune_operator.cluster.kinds import FINETUNE, NAMESPACE, PROJECT
from codetune_operator.errors import ForbiddenError
from codetune_operator.handlers.resyncing import Resync
from codetune_operator.handlers.storing import Store
from codetune_operator.handlers.watching import WATCHED

if TYPE_CHECKING:
    from unit.operator.conftest import Api

Obj = dict[str, Any]
HELD = "codetune.dev/artifacts"
CANNOT = (403, {"message": 'User "x" cannot list resource "jobs"'})


def make(name: str, *finalizers: str) -> Obj:
    metadata = {"name": name, "namespace": "away", "uid": name, "resourceVersion": "7", "finalizers": list(finalizers)}
    return {"metadata": metadata}


def serve(api: "Api", *, ending: bool) -> None:
    """A namespace with two Projects and a FineTune, in which nothing else can be read; and one in order."""
    for kind in WATCHED:
        api.answers["GET", kind.path("away")] = CANNOT
        api.answers["GET", kind.path("here")] = (200, {"items": [], "metadata": {"resourceVersion": "5"}})
    held = {PROJECT: [make("a", HELD, "other"), make("b", "other")], FINETUNE: [make("c", HELD)]}
    for kind, items in held.items():
        api.answers["GET", kind.path("away")] = (200, {"items": items, "metadata": {}})
        for obj in items:
            api.answers["PATCH", kind.path("away", obj["metadata"]["name"])] = (200, obj)
    deletion = {"deletionTimestamp": "t"} if ending else {}
    api.answers["GET", NAMESPACE.path(None, "away")] = (200, {"metadata": {"name": "away", **deletion}})


def released(api: "Api") -> list[tuple[str, Any]]:
    return [(request.path, request.body["metadata"]) for request in api.seen if request.method == "PATCH"]


LET_GO = [
    (PROJECT.path("away", "a"), {"finalizers": ["other"], "resourceVersion": "7"}),
    (FINETUNE.path("away", "c"), {"finalizers": [], "resourceVersion": "7"}),
]


@pytest.mark.parametrize(
    ("expected", "ending"), [pytest.param(LET_GO, True, id="it goes"), pytest.param([], False, id="it stays")]
)
async def test_a_namespace_that_goes_is_let_go_of(expected: Any, ending: bool, api: "Api") -> None:
    serve(api, ending=ending)
    resync = Resync(api.connect(), Store(), ["here", "away"])

    await resync.prime()

    assert resync.refused == {"away"}
    assert released(api) == expected


async def test_the_only_namespace_is_let_go_of_before_the_operator_gives_up(api: "Api") -> None:
    serve(api, ending=True)

    with pytest.raises(ForbiddenError):
        await Resync(api.connect(), Store(), ["away"]).prime()

    assert released(api) == LET_GO


@pytest.mark.parametrize("status", [404, 409])
async def test_what_changed_meanwhile_holds_up_no_other(status: int, api: "Api") -> None:
    serve(api, ending=True)
    api.answers["PATCH", PROJECT.path("away", "a")] = (status, {"message": "changed"})

    await Resync(api.connect(), Store(), ["here", "away"]).prime()

    assert [path for path, _ in released(api)] == [path for path, _ in LET_GO]


async def test_where_nobody_may_ask_the_others_go_on(api: "Api", caplog: pytest.LogCaptureFixture) -> None:
    serve(api, ending=True)
    api.answers["GET", NAMESPACE.path(None, "away")] = (403, {"message": 'User "x" cannot get resource "namespaces"'})

    await Resync(api.connect(), Store(), ["here", "away"]).prime()

    assert "What is held in namespace away can't be let go of now" in caplog.text
    assert released(api) == []
