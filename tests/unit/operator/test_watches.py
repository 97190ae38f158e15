"""What the API server is asked for: of each kind that is watched, only the objects that matter."""

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
    Kind,
)
from codetune_operator.handlers.resyncing import Resync
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
