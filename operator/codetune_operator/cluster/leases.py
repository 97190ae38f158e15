"""The Lease that says which of several operators works: what is to be written, given what was found. Pure.

The semantics are client-go's: somebody else's Lease is over once it has been seen unchanged for as long as it lasts, by
the clock of the one that looks. The times that are written in it are for people; nobody compares clocks.
"""

from datetime import UTC, datetime
from typing import Any

from codetune_api.metadata import labels

from codetune_operator.cluster.kinds import LEASE

Obj = dict[str, Any]

LEASE_NAME = "codetune-operator"
LEASE_SECONDS = 15


def hold_lease(
    lease: Obj | None, *, unchanged_seconds: float, identity: str, namespace: str, now: datetime
) -> Obj | None:
    """The Lease as its holder writes it; None while it is somebody else's.

    Args:
        lease: What was found; None: nothing.
        unchanged_seconds: For how long it has been seen as it is.
        identity: Who wants to hold it.
        namespace: Where.
        now: For people.
    """
    time = format_micro_time(now)
    mine = {"holderIdentity": identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": time}
    if lease is None:
        metadata = {"name": LEASE_NAME, "namespace": namespace, "labels": labels("operator", "operator", {})}
        first = {**mine, "acquireTime": time, "leaseTransitions": 0}
        return {"apiVersion": LEASE.api_version, "kind": LEASE.name, "metadata": metadata, "spec": first}
    spec: Obj = lease.get("spec") or {}
    holder = holder_of(lease)
    if holder == identity:
        return {**lease, "spec": {**spec, **mine}}
    if holder and unchanged_seconds <= (spec.get("leaseDurationSeconds") or LEASE_SECONDS):
        return None
    taken = {"acquireTime": time, "leaseTransitions": (spec.get("leaseTransitions") or 0) + 1}
    return {**lease, "spec": {**spec, **mine, **taken}}


def release_lease(lease: Obj, *, identity: str, now: datetime) -> Obj | None:
    """The Lease without a holder, so that the next one need not wait; None where it is not this holder's."""
    if holder_of(lease) != identity:
        return None
    nobody = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": format_micro_time(now)}
    return {**lease, "spec": {**lease["spec"], **nobody}}


def holder_of(lease: Obj) -> str:
    """Who holds a Lease; empty: nobody."""
    return (lease.get("spec") or {}).get("holderIdentity") or ""


def format_micro_time(moment: datetime) -> str:
    """A time as Leases hold it, to the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
