"""Kubernetes quantities as numbers: reading them, adding them up, and saying them to people. Pure."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+)(?:e([+-]?[0-9]+)|([numkKMGTPE]i?)?)", re.IGNORECASE)
_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}

Amounts = dict[str, Decimal]
"""Resource name → amount in its base unit: cores, bytes, devices."""


def parse_quantity(text: str) -> Decimal:
    """The value of `500m`, `16Gi`, `2`, `1e3`. Raises: ValueError."""
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write a number with a suffix as in 500m, 2 or 16Gi")
    number, exponent, suffix = match.groups()
    if exponent is not None:
        return Decimal(number).scaleb(int(exponent))
    factor = _SUFFIXES.get(suffix or "")
    if factor is None:
        raise ValueError(f"{text!r} has an unknown suffix {suffix!r}: use one of {', '.join(filter(None, _SUFFIXES))}")
    return Decimal(number) * factor


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
        if amount >= _SUFFIXES[suffix]:
            return f"{_plain(amount / _SUFFIXES[suffix])}{suffix}"
    return _plain(amount)


def _plain(amount: Decimal) -> str:
    rounded = round(amount, 1)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)
