"""How much memory a container uses, and what happens when that is more than its limit."""

import asyncio
import signal

import psutil  # type: ignore[import-untyped]  # publishes no type information

from codetune_local.kubelet.processes import Attempt, condemn, send_signal


def used_bytes(main_pid: int, limit: int) -> int:
    """Resident memory of a process and all its descendants.

    Pages that several of them share are counted once each time they are mapped, unless that would exceed `limit`:
    then each page is counted in shares (PSS), which is exact but slower to learn.
    """
    family = _family(main_pid)
    resident = sum(_measure(process, exact=False) for process in family)
    return resident if resident <= limit else sum(_measure(process, exact=True) for process in family)


def _family(main_pid: int) -> list[psutil.Process]:
    try:
        main = psutil.Process(main_pid)
        return [main, *main.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _measure(process: psutil.Process, *, exact: bool) -> int:
    try:
        if exact and hasattr(full := process.memory_full_info(), "pss"):
            share: int = full.pss
            return share
        resident: int = process.memory_info().rss
        return resident
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0  # it ended in this moment, or runs as somebody else and cannot be measured


async def enforce_limit(attempt: Attempt, limit: int, every: float) -> None:
    """Kill a container that goes over its limit (bytes); run as long as the container does."""
    pid = attempt.pid
    while pid is not None:
        used = await asyncio.to_thread(used_bytes, pid, limit)
        if used > limit:
            condemn(attempt, "OOMKilled")
            send_signal(attempt, signal.SIGKILL)
            return
        await asyncio.sleep(every)
