"""What a status says while nothing can be done about its resource. Pure.

A refusal is about the last look only. What a run or a scan came to stays beside it, because later looks go by that.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from codetune_api.common import Condition, Failure, FailureReason
from codetune_api.finetune import FineTune
from codetune_api.project import Project
from pydantic import ValidationError

from codetune_operator.reconcile import conditions

Obj = dict[str, Any]
T = TypeVar("T", Project, FineTune)

_REASONS: frozenset[FailureReason] = frozenset({"InvalidSpec", "NameTaken", "Forbidden", "Refused"})
_LONGEST = 4096


def refuse(reason: FailureReason, message: str, hint: str) -> Failure:
    """The failure that a refusal is; what does not fit is cut off its message."""
    return Failure(reason=reason, message=message[:_LONGEST], hint=hint)


def tell_refusal(
    status: Obj, wanted: conditions.Wanted, failure: Failure | None, generation: int, now: datetime
) -> Obj:
    """The new status, as JSON: it may be one that can't be read.

    Args:
        status: The status before; what it says besides stays.
        wanted: The conditions.
        failure: What was refused; None: it passes by itself.
        generation: Of the resource that was looked at.
        now: The time.
    """
    updated = conditions.update(_read_conditions(status.get("conditions") or []), wanted, generation, now)
    told = {**status, "observedGeneration": generation, "conditions": [entry.to_wire() for entry in updated]}
    before = (status.get("failure") or {}).get("reason")
    if status.get("phase") == "Failed" and before not in {None, *_REASONS}:
        return told
    told.pop("failure", None)
    return told if failure is None else {**told, "failure": failure.to_wire()}


def forget_refusal(resource: T) -> T:
    """The resource as its own runs and scans left it."""
    failure = resource.status.failure
    if failure is None or failure.reason not in _REASONS:
        return resource
    return resource.model_copy(update={"status": resource.status.model_copy(update={"failure": None})})


def _read_conditions(entries: Sequence[Obj]) -> list[Condition]:
    """Those that can be read."""
    found = []
    for entry in entries:
        try:
            found.append(Condition.from_wire(entry))
        except ValidationError:
            continue
    return found
