"""Kubernetes quantities as numbers."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+)(?:e([+-]?[0-9]+)|([numkKMGTPE]i?)?)", re.IGNORECASE)
_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", 1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", 1)},
}


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
