"""How many cores a process may use: what its affinity allows, and at most what its container is granted."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where a container sees the limits on itself."""
_V2 = "cpu.max"
"""`<microseconds, or max> <period>`: how much CPU time the container may use in each period (cgroup v2)."""
_V1 = tuple(
    (f"{controller}/cpu.cfs_quota_us", f"{controller}/cpu.cfs_period_us") for controller in ("cpu", "cpu,cpuacct")
)
"""The same in two files; -1: no limit (cgroup v1)."""


def usable_cores(cgroups: Path = CGROUPS) -> int:
    """Cores that this process may keep busy, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = read_quota(cgroups)
    # Of a part of a core something is left over when it is rounded up, and something lies idle when it is not.
    return cores if granted is None else max(1, min(cores, math.ceil(granted)))


def read_quota(cgroups: Path = CGROUPS) -> float | None:
    """Cores that the container is granted, e.g. 1.5; None: no limit that can be read."""
    if (cgroups / _V2).is_file():
        return _divide(_read(cgroups / _V2).split())
    return next(filter(None, (_divide([_read(cgroups / name) for name in names]) for names in _V1)), None)


def _divide(words: list[str]) -> float | None:
    try:
        granted, period = map(int, words)  # or the word max
        return granted / period if granted > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
