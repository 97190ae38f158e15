"""What the machine offers a run: its device, its threads, and whether it computes in bf16."""

import math
import os
from pathlib import Path
from typing import Any, Literal

import torch

from codetune_trainer.errors import DeviceMissing

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""`<microseconds, or max> <period>`: how much CPU time a container may use (cgroup v2)."""


def find_device(kind: Literal["cpu", "cuda"]) -> torch.device:
    """The device to train on. Raises: DeviceMissing."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(
            "The run asked for a GPU, but PyTorch sees none in its pod.",
            "Check the GPU driver of the node and the trainer image, or set resources.gpus to 0.",
        )
    return torch.device(kind)


def count_threads(quota: Path = _CPU_QUOTA) -> int:
    """CPU cores to use: its affinity, at most what it was told (OMP_NUM_THREADS) and what its container may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    cores = min(cores, int(told)) if told.isdigit() and int(told) else cores
    try:
        granted, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if granted == "max" else max(1, min(cores, math.ceil(int(granted) / int(period))))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16 itself; a CPU that only emulates it is ten times slower than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that works
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("bf16"))
