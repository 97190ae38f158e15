"""A story of changes: adapters are added, replaced, removed and rolled back, the same story for the same seed."""

import random
from collections.abc import Iterator, Sequence
from typing import Literal

Kind = Literal["replace", "remove", "roll back", "add"]
KINDS: tuple[Kind, ...] = ("replace", "remove", "roll back", "add")
Versions = dict[str, str]
"""Model name → version."""


def tell_swaps(start: Versions, versions: Sequence[str], count: int, seed: int) -> Iterator[tuple[Kind, Versions]]:
    """`count` changes in turn, each with the whole set after it; every kind comes again and again."""
    chance = random.Random(seed)
    current, former = dict(start), dict(start)
    removed: list[str] = []
    replaced: list[str] = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        if kind == "replace":
            # Two names at once now and then.
            replaced = chance.sample(sorted(current), k=min(len(current), 1 + number // len(KINDS) % 2))
            former = dict(current)
            for name in replaced:
                current[name] = chance.choice([version for version in versions if version != current[name]])
        elif kind == "remove":
            name = chance.choice([name for name in sorted(current) if name not in replaced])
            removed.append(name)
            del current[name]
        elif kind == "roll back":
            for name in replaced:
                current[name] = former[name]
        else:
            current[removed.pop()] = chance.choice(list(versions))
        yield kind, dict(current)
