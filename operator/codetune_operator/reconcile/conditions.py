"""Standard conditions as kstatus reads them. Pure.

`Ready` is always there. `Reconciling` and `Stalled` are abnormal: they are there only while they are true.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from codetune_api.common import Condition

from codetune_operator.reconcile.durations import format_time

ConditionStatus = Literal["True", "False", "Unknown"]
Wanted = Mapping[str, tuple[ConditionStatus, str, str]]
"""Condition type → status, CamelCase reason, message. The whole set: what is not named goes away."""


def ready(reason: str, message: str) -> Wanted:
    """All is as asked for."""
    return {"Ready": ("True", reason, message)}


def reconciling(reason: str, message: str) -> Wanted:
    """Not there yet; it gets there by itself."""
    return {"Ready": ("False", reason, message), "Reconciling": ("True", reason, message)}


def refreshing(before: Condition, reason: str, message: str) -> Wanted:
    """What was asked for is there and goes on to say so; something newer is on its way."""
    return {"Ready": ("True", before.reason, before.message), "Reconciling": ("True", reason, message)}


def stalled(reason: str, message: str) -> Wanted:
    """Not there, and it won't get there before somebody changes something."""
    return {"Ready": ("False", reason, message), "Stalled": ("True", reason, message)}


def paused(reason: str, message: str) -> Wanted:
    """Not there because somebody asked for a halt; nothing is wrong."""
    return {"Ready": ("False", reason, message)}


def update(previous: Iterable[Condition], wanted: Wanted, generation: int, now: datetime) -> list[Condition]:
    """The new list of conditions; `lastTransitionTime` moves only where the status changed."""
    before = {condition.type: condition for condition in previous}
    return [_update(kind, before.get(kind), wanted[kind], generation, now) for kind in wanted]


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of a type, if it is there."""
    return next((condition for condition in conditions if condition.type == kind), None)


def _update(
    kind: str, old: Condition | None, wanted: tuple[ConditionStatus, str, str], generation: int, now: datetime
) -> Condition:
    status, reason, message = wanted
    since = old.last_transition_time if old is not None and old.status == status else format_time(now)
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message[:32768],
        last_transition_time=since,
        observed_generation=generation,
    )
