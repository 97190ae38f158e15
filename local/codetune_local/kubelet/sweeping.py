"""Ending the processes of pods that no kubelet looks after: leftovers of a killed daemon."""

import asyncio
import signal
import time
from pathlib import Path

from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.processes import Attempt, has_processes, list_attempts, send_signal

_STEP = 0.05


def running_attempts(folder: PodFolder) -> list[Attempt]:
    """The runs of a pod that still have processes."""
    containers = folder.path / "containers"
    if not containers.is_dir():
        return []
    return [attempt for entry in containers.iterdir() for attempt in list_attempts(entry) if has_processes(attempt)]


def sweep(state: Path, grace: float) -> int:
    """Stop everything that runs below a state folder; returns how many containers that were. Takes `grace` seconds."""
    pods = state / "pods"
    folders = [PodFolder(entry) for entry in pods.iterdir()] if pods.is_dir() else []
    running = [attempt for folder in folders for attempt in running_attempts(folder)]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, grace)):
        for attempt in running:
            send_signal(attempt, number)
        deadline = time.monotonic() + seconds
        while any(has_processes(attempt) for attempt in running) and time.monotonic() < deadline:
            time.sleep(_STEP)
    return len(running)


async def sweep_pod(folder: PodFolder, *, remove: bool) -> None:
    """Kill what runs of one pod, and remove its files."""
    for attempt in running_attempts(folder):
        send_signal(attempt, signal.SIGKILL)
        while has_processes(attempt):
            await asyncio.sleep(_STEP)
    if remove:
        await asyncio.to_thread(folder.remove)
