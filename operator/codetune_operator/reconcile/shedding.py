"""Children that a spec asks for no longer. Pure."""

from collections.abc import Iterable

from codetune_operator.reconcile.plan import ChildRef, Obj
from codetune_operator.resources.policies import POLICY_KINDS


def find_unwanted(policies: Iterable[Obj], children: Iterable[Obj]) -> tuple[ChildRef, ...]:
    """Those of the policies that are there which are not among the children that are to be."""
    wanted = {(child["kind"], child["metadata"]["name"]) for child in children}
    return tuple(
        ChildRef(POLICY_KINDS[obj["kind"]], obj["kind"], obj["metadata"]["name"], obj["metadata"].get("uid"))
        for obj in policies
        if (obj["kind"], obj["metadata"]["name"]) not in wanted and not obj["metadata"].get("deletionTimestamp")
    )
