"""Of several operators one works: what is written into the Lease that says which."""

import copy
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from codetune_operator.cluster.leases import format_micro_time, hold_lease, release_lease

Obj = dict[str, Any]
NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
TIME = "2026-03-04T05:06:07.000089Z"
EARLIER = "2026-03-04T05:00:00.000000Z"


def make(holder: str | None, seconds: int | None = 15, **spec: Any) -> Obj:
    """A Lease as it lies in the API server."""
    told = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": EARLIER, "renewTime": EARLIER}
    metadata = {"name": "codetune-operator", "namespace": "system", "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {**told, "leaseTransitions": 3, **spec}}


MINE = make("me", renewTime=TIME)
TAKEN = make("me", renewTime=TIME, acquireTime=TIME, leaseTransitions=4)


@pytest.mark.parametrize(
    ("expected", "found", "unchanged"),
    [
        pytest.param(MINE, make("me"), 0, id="mine"),
        pytest.param(MINE, make("me"), 99, id="mine, though it was not renewed in time"),
        pytest.param(None, make("other"), 0, id="another's, seen for the first time"),
        pytest.param(None, make("other"), 15, id="another's, for as long as it lasts"),
        pytest.param(TAKEN, make("other"), 15.1, id="another's that is over"),
        pytest.param(None, make("other", 60), 59, id="another's that lasts longer than ours"),
        pytest.param(None, make("other", None), 15, id="another's that does not say how long"),
        pytest.param(TAKEN, make("other", None), 15.1, id="another's that does not say how long, and is over"),
        pytest.param(TAKEN, make("", 1), 0, id="released"),
        pytest.param(TAKEN, make(None), 0, id="nobody's"),
        pytest.param(make("me", 15, **{**TAKEN["spec"], "strategy": "x"}), make("", strategy="x"), 0, id="more in it"),
    ],
)
def test_what_a_candidate_writes(expected: Obj | None, found: Obj, unchanged: float) -> None:
    before = copy.deepcopy(found)
    written = hold_lease(found, unchanged_seconds=unchanged, identity="me", namespace="system", now=NOW)
    assert written == expected
    assert found == before


def test_a_lease_that_is_absent_is_made() -> None:
    made = hold_lease(None, unchanged_seconds=0, identity="me", namespace="system", now=NOW)
    assert made is not None
    assert (made["apiVersion"], made["kind"]) == ("coordination.k8s.io/v1", "Lease")
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("codetune-operator", "system")
    assert "resourceVersion" not in made["metadata"]
    assert made["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": TIME,
        "renewTime": TIME,
        "leaseTransitions": 0,
    }


def test_a_lease_without_a_spec_is_taken() -> None:
    found = {"metadata": {"resourceVersion": "7"}}
    written = hold_lease(found, unchanged_seconds=0, identity="me", namespace="system", now=NOW)
    assert written is not None
    assert (written["spec"]["holderIdentity"], written["spec"]["leaseTransitions"]) == ("me", 1)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        pytest.param(make("", 1, renewTime=TIME), make("me"), id="mine"),
        pytest.param(None, make("other"), id="another's"),
        pytest.param(None, make(""), id="nobody's"),
    ],
)
def test_only_the_holder_releases(expected: Obj | None, found: Obj) -> None:
    assert release_lease(found, identity="me", now=NOW) == expected


def test_times_are_as_leases_hold_them() -> None:
    assert format_micro_time(NOW) == TIME
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", format_micro_time(datetime.now(UTC)))
