"""Resource quantities ("500m", "2Gi") as exact numbers. Pure."""

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation

Amounts = dict[str, Decimal]
"""Resource name → cores, bytes or pieces."""

_FACTORS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(1000),
    "M": Decimal(1000) ** 2,
    "G": Decimal(1000) ** 3,
    "T": Decimal(1000) ** 4,
    "P": Decimal(1000) ** 5,
    "E": Decimal(1000) ** 6,
    "Ki": Decimal(1024),
    "Mi": Decimal(1024) ** 2,
    "Gi": Decimal(1024) ** 3,
    "Ti": Decimal(1024) ** 4,
    "Pi": Decimal(1024) ** 5,
    "Ei": Decimal(1024) ** 6,
}


def parse_quantity(value: str | int | float) -> Decimal:
    """Read a quantity. Raises: ValueError naming what was given."""
    text = str(value).strip()
    suffix = next((end for end in (text[-2:], text[-1:]) if end in _FACTORS), "")
    try:
        # "1E3" is an exponent and "1E" is exa: only a suffix that leaves a number counts.
        return Decimal(text.removesuffix(suffix) if suffix else text) * _FACTORS.get(suffix, Decimal(1))
    except InvalidOperation as error:
        raise ValueError(f"quantity {value!r} is not a number with an optional suffix like m, Ki or Gi") from error


def parse_amounts(quantities: Mapping[str, str | int] | None) -> Amounts:
    """Read a ResourceList."""
    return {name: parse_quantity(value) for name, value in (quantities or {}).items()}


def add_amounts(lists: Iterable[Mapping[str, Decimal]]) -> Amounts:
    """Sum by resource."""
    total: Amounts = {}
    for amounts in lists:
        for name, amount in amounts.items():
            total[name] = total.get(name, Decimal(0)) + amount
    return total


def largest_amounts(lists: Iterable[Mapping[str, Decimal]]) -> Amounts:
    """Maximum by resource."""
    largest: Amounts = {}
    for amounts in lists:
        for name, amount in amounts.items():
            largest[name] = max(largest.get(name, Decimal(0)), amount)
    return largest
