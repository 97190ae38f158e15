"""Handing out GPUs and CPU cores to containers."""

import math
import os
from collections import Counter
from collections.abc import Collection
from decimal import Decimal


def choose_gpus(count: int, in_use: Collection[int]) -> tuple[int, ...]:
    """The lowest free device numbers; the scheduler has made sure that there are enough."""
    chosen: list[int] = []
    index = 0
    while len(chosen) < count:
        if index not in in_use:
            chosen.append(index)
        index += 1
    return tuple(chosen)


class CorePool:
    """Spreads containers with a CPU limit over the cores. A limit of 1.5 gets two cores."""

    def __init__(self, cores: Collection[int] | None = None) -> None:
        """`cores`: those of this process when not given."""
        self._uses = Counter(dict.fromkeys(cores if cores is not None else usable_cores(), 0))

    def take(self, limit: Decimal | None) -> tuple[int, ...]:
        """The least used cores; empty (all of them) without a limit, or with one that is no limit here."""
        count = math.ceil(limit) if limit else 0
        if not 0 < count < len(self._uses):
            return ()
        chosen = tuple(sorted(sorted(self._uses, key=lambda core: (self._uses[core], core))[:count]))
        self._uses.update(chosen)
        return chosen

    def give_back(self, cores: Collection[int]) -> None:
        """The container ended."""
        self._uses.subtract(cores)


def usable_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
