"""How the values of a metric are found in a resource as the watches tell it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel

from codetune_operator.metrics.families import RESOURCE, Family
from codetune_operator.reconcile.durations import parse_time

Obj = dict[str, Any]
Values = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels that follow those of the resource → value."""


@dataclass(frozen=True)
class Series:
    """A metric, and what a resource has of it."""

    family: Family
    read: Callable[[Obj], Values]


def measure(
    name: str, *path: str, help: str, scale: float = 1.0, type: Literal["counter", "gauge"] = "gauge"
) -> Series:
    """A number of a resource, told where the resource has it.

    Args:
        name: The metric's name.
        path: Where the number is, as keys from the resource inwards.
        help: What it is.
        scale: Brings it to the base unit.
        type: A counter never falls.
    """

    def read(obj: Obj) -> Values:
        number = find(obj, *path)
        return [((), number * scale)] if isinstance(number, int | float) else []

    return Series(Family(name, type, RESOURCE, help), read)


def moment(name: str, *path: str, help: str, labels: tuple[str, ...] = RESOURCE) -> Series:
    """A time of a resource, in seconds since 1970, told where the resource has it."""

    def read(obj: Obj) -> Values:
        text = find(obj, *path)
        return [((), parse_time(text).timestamp())] if text else []

    return Series(Family(name, "gauge", labels, help), read)


def find(obj: Obj, *path: str) -> Any:
    """What is at a path, or None."""
    found: Any = obj
    for key in path:
        found = (found or {}).get(key)
    return found


def words_of(model: type[BaseModel], field: str) -> tuple[str, ...]:
    """The words that a field of a status may hold, by its type: a Literal, or one that may be None."""
    annotation = model.model_fields[field].annotation
    return tuple(word for part in get_args(annotation) for word in (get_args(part) or (part,)) if isinstance(word, str))
