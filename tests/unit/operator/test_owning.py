"""Whose an object is that has a child's name: written to, waited for, or left and told."""

from typing import Any

import pytest
from codetune_api.metadata import labels
from codetune_operator.errors import LeftoverError, OccupiedError, OperatorError
from codetune_operator.reconcile.owning import check_owner

Obj = dict[str, Any]
OURS = labels("server", "coder", {"codetune.dev/modeldeployment": "coder"})
MINE = {"kind": "ModelDeployment", "name": "coder", "uid": "u2", "controller": True}
WANTED: Obj = {"kind": "ConfigMap", "metadata": {"name": "c", "labels": OURS, "ownerReferences": [MINE]}}
FREE: Obj = {"kind": "Service", "metadata": {"name": "codetune-store", "labels": OURS}}
"""As the store service, a purge or the claim: nobody controls it."""
GUEST = {"kind": "Project", "name": "shop", "uid": "u7"}


def make(*owners: Obj, marks: Obj | None = None) -> Obj:
    return {"metadata": {"name": "c", "uid": "x", "labels": marks, "ownerReferences": list(owners)}}


CASES = [
    pytest.param(None, make(MINE, marks=OURS), WANTED, "", id="our own"),
    pytest.param(None, make(MINE), WANTED, "", id="our own whose labels were removed"),
    pytest.param(None, make(GUEST, MINE), WANTED, "", id="our own, which somebody needs too"),
    pytest.param(None, make(marks=OURS), WANTED, "", id="an orphan"),
    pytest.param(None, make(marks=OURS | {"new": "x"}), WANTED, "", id="an orphan that somebody labelled"),
    pytest.param(None, make(GUEST, marks=OURS), FREE, "", id="one that nobody controls"),
    pytest.param(
        OccupiedError, make(), WANTED, "ConfigMap 'c' is in the way: somebody else made it.", id="a stranger's"
    ),
    pytest.param(
        OccupiedError,
        make(marks=labels("server", "other", {})),
        WANTED,
        "somebody else made it",
        id="a sibling's orphan",
    ),
    pytest.param(
        *(OccupiedError, make(MINE | {"name": "other", "uid": "u9"}, marks=OURS), WANTED),
        "it belongs to ModelDeployment 'other'.",
        id="a sibling's",
    ),
    pytest.param(
        *(OccupiedError, make(MINE | {"kind": "Deployment"} | {"uid": "u3"}), WANTED),
        "it belongs to Deployment 'coder'.",
        id="another kind's",
    ),
    pytest.param(
        *(LeftoverError, make(MINE | {"uid": "u1"}, marks=OURS), WANTED),
        "it was made for an earlier ModelDeployment 'coder', and is removed with that.",
        id="of a restored backup, or not collected yet",
    ),
    pytest.param(
        *(OccupiedError, make(MINE, marks=OURS), FREE, "it belongs to ModelDeployment 'coder'."), id="not free any more"
    ),
    pytest.param(OccupiedError, {"metadata": {"uid": "x"}}, FREE, "somebody else made it", id="bare"),
]


@pytest.mark.parametrize(("expected", "live", "wanted", "words"), CASES)
def test_an_object_is_written_to_only_by_its_owner(
    expected: type[OperatorError] | None, live: Obj, wanted: Obj, words: str
) -> None:
    if expected is None:
        check_owner(live, wanted)
        return
    with pytest.raises(OccupiedError) as caught:
        check_owner(live, wanted)
    assert type(caught.value) is expected
    assert words in str(caught.value)
