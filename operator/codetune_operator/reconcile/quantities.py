"""Kubernetes quantities as numbers: reading them, adding them up, and saying them to people. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from codetune_api.quantities import parse_quantity

Amounts = dict[str, Decimal]
"""Resource name → amount in its base unit: cores, bytes, devices."""


def read_amounts(resources: Mapping[str, Any] | None) -> Amounts:
    """A `requests` or `allocatable` map as numbers."""
    return {name: parse_quantity(str(text)) for name, text in (resources or {}).items()}


def sum_amounts(parts: Iterable[Amounts]) -> Amounts:
    """Resource by resource, all together."""
    total: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def largest_amounts(parts: Iterable[Amounts]) -> Amounts:
    """Resource by resource, the largest."""
    largest: Amounts = {}
    for part in parts:
        for name, amount in part.items():
            largest[name] = max(largest.get(name, amount), amount)
    return largest


def say_amount(name: str, amount: Decimal) -> str:
    """For people: `64 nvidia.com/gpu`, `1.5 CPU`, `16Gi memory`."""
    if name == "cpu":
        return f"{_plain(amount)} CPU"
    if name in {"memory", "ephemeral-storage"}:
        return f"{_say_bytes(amount)} {name}"
    return f"{_plain(amount)} {name}"


def _say_bytes(amount: Decimal) -> str:
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if amount >= (unit := parse_quantity(f"1{suffix}")):
            return f"{_plain(amount / unit)}{suffix}"
    return _plain(amount)


def _plain(amount: Decimal) -> str:
    rounded = round(amount, 1)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)
