"""Whose an object is that has the name of a child. Pure.

One rule for every kind: a resource writes to what it controls, and to what nobody controls and Codetune's labels name
as just this child: the store service, a purge, and what outlived its owner because that was deleted with
`--cascade=orphan`. Everything else is left as it is. That goes for children out of a restored backup too, whose owner
has another uid than the restored resource: the cluster's garbage collector removes them.
"""

from codetune_api.metadata import LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MANAGED_BY

from codetune_operator.errors import LeftoverError, OccupiedError
from codetune_operator.reconcile.plan import Obj

_IDENTITY = (LABEL_MANAGED_BY, LABEL_COMPONENT, LABEL_INSTANCE)


def check_owner(live: Obj, wanted: Obj) -> None:
    """Nothing for what may be written to.

    Args:
        live: What is there.
        wanted: The child that is to be applied, of the same kind and name.

    Raises:
        LeftoverError: It is of an earlier resource of the same name.
        OccupiedError: It is somebody else's.
    """
    theirs, ours = _controller(live), _controller(wanted)
    subject = f"{wanted['kind']} {wanted['metadata']['name']!r} is in the way"
    if not theirs:
        if _identity(live) != _identity(wanted):
            raise OccupiedError(f"{subject}: somebody else made it.")
    elif theirs["uid"] != ours.get("uid"):
        owner = f"{theirs['kind']} {theirs['name']!r}"
        if (theirs["kind"], theirs["name"]) == (ours.get("kind"), ours.get("name")):
            raise LeftoverError(f"{subject}: it was made for an earlier {owner}, and is removed with that.")
        raise OccupiedError(f"{subject}: it belongs to {owner}.")


def _controller(obj: Obj) -> Obj:
    """The owner reference of the controller; empty where there is none."""
    references = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), {})


def _identity(obj: Obj) -> list[str | None]:
    labels = obj["metadata"].get("labels") or {}
    return [labels.get(key) for key in _IDENTITY]
