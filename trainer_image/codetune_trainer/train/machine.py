"""What the machine offers a run: its device, its threads, its memory, and whether it computes in bf16."""

import ctypes
import os
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch

from codetune_trainer.cores import CGROUPS, usable_cores
from codetune_trainer.errors import DeviceMissing

_MEMORY_LIMIT = CGROUPS
"""Where memory.max, memory.current and memory.stat of a container are (cgroup v2)."""
_MEMORY = Path("/proc/meminfo")
_STARTED = time.monotonic()
# Parameters of glibc's mallopt, and values: nothing is mapped for itself, and what was freed stays with the process.
_ALLOCATION = ((-1, -1), (-2, 64 << 20), (-4, 0))  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX


def find_device(kind: Literal["cpu", "cuda"], processes: int = 1) -> torch.device:
    """The device to train on, one for each of the processes of this machine. Raises: DeviceMissing."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(
            "The run asked for a GPU, but PyTorch sees none in its pod.",
            "Check the GPU driver of the node and the trainer image, or set resources.gpus to 0.",
        )
    if kind == "cuda" and torch.cuda.device_count() < processes:
        raise DeviceMissing(
            f"The run asked for {processes} GPUs, but PyTorch sees {torch.cuda.device_count()} in its pod.",
            "Check the device plugin of the node, or set resources.gpus to what a node has.",
        )
    return torch.device(kind)


def count_threads(cgroups: Path = CGROUPS) -> int:
    """Threads to compute with: one for each core that may be used, at most what was told (OMP_NUM_THREADS)."""
    cores = usable_cores(cgroups)
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(told)) if told.isdigit() and int(told) else cores


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16 itself; a CPU that only emulates it is ten times slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that works
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory instead of giving it back; returns whether it does.

    By default each large tensor is a fresh mapping, whose pages the kernel clears one by one when they are first
    written. Has no effect on other platforms and allocators.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(name, value) == 1 for name, value in _ALLOCATION)


def free_memory(device: torch.device, limit: Path = _MEMORY_LIMIT, machine: Path = _MEMORY) -> int | None:
    """Bytes that a process can still take on the device; on a CPU within the limit of its container. None: unknown."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    found = [bytes_left for bytes_left in (_free_on(machine), _free_within(limit)) if bytes_left is not None]
    return min(found, default=None)


def _free_on(machine: Path) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in machine.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None


def _free_within(limit: Path) -> int | None:
    try:
        most = int((limit / "memory.max").read_text())  # or the word max
        used = int((limit / "memory.current").read_text())
        kinds = dict(line.split() for line in (limit / "memory.stat").read_text().splitlines())
        # The kernel gives up cached files before it refuses memory.
        return max(0, most - used + int(kinds["inactive_file"]) + int(kinds["active_file"]))
    except (OSError, ValueError, KeyError):
        return None


def seconds_since_start() -> float:
    """Since the kernel started this process; where that can't be read, since this module was loaded."""
    try:
        # After the program's name, which may hold anything: fields 3 and on, of which 22 is the start in clock ticks.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
        return up - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _STARTED
