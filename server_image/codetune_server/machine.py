"""What this process may use of the machine: cores, CPU time, memory."""

import math
import os
import socket
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Machine:
    """Limits of this process."""

    cores: tuple[int, ...]
    """Numbers of the cores that it may run on."""
    memory_bytes: int
    quota: int | None = None
    """CPU time in whole cores, rounded up; None: no limit but the cores."""
    has_ipv6: bool = False
    """Whether one address of both families can be listened on."""

    @classmethod
    def here(cls, cgroup: Path = CGROUP) -> "Machine":
        """The limits as they are now."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _read(cgroup / "memory.max")
        quota, _, period = _read(cgroup / "cpu.max").partition(" ")
        return cls(
            cores=_cores(),
            memory_bytes=min(memory, int(limit)) if limit.isdecimal() else memory,
            quota=math.ceil(int(quota) / int(period)) if quota.isdecimal() else None,
            has_ipv6=_can_listen_on_both(),
        )


def _cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _can_listen_on_both() -> bool:
    """Not where the kernel has no IPv6, or keeps its sockets to IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
            return probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    except OSError:
        return False


def _read(path: Path) -> str:
    """A cgroup file's text; empty where there is none: no cgroup v2, or another operating system."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
