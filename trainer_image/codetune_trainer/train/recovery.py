"""What a run has learned from attempts that ended badly, kept in its folder. Pure but for reading and writing it.

A process that the kernel ends for memory leaves no word. So each attempt leaves a mark before its first step, and takes
it away after a few steps, or when it ends in any other way. Who finds the mark halves the micro-batch if there is
evidence that memory was the cause: once if the operator has seen a pod die of it, and as long as there is something to
halve if the attempt itself was short of it. Without any, as when a node was lost, the attempt is simply made again.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from codetune_trainer.errors import OutOfMemory
from codetune_trainer.manifests import replace_text
from codetune_trainer.train.names import RECOVERY

_SMALLER = "a smaller training.sequenceLength or lora.rank, or training.gradientCheckpointing: On"
_MORE = {
    "cpu": f"Raise resources.memory, or make a new FineTune with {_SMALLER}.",
    "cuda": f"Make a new FineTune with GPUs that have more memory, with more of them, or with {_SMALLER}.",
}


@dataclass(frozen=True)
class Recovery:
    """What later attempts have to know."""

    is_trying: bool = False
    """The mark: an attempt is in its first steps."""
    deaths: int = 0
    """Attempts in a row that died of memory in their first steps."""
    told_deaths: int = 0
    """Pods that had died of memory when the last attempt began, as its configuration said."""
    is_short: bool = False
    """The last attempt has said itself that memory is short."""
    micro_batch: int | None = None
    """Of the last attempt that left the mark."""
    most_rows: int | None = None
    """Most sequences at once; None: as many as fit."""
    checkpointing: bool = False
    """Whether activations must be computed twice."""
    rate: float = 1.0
    """Share of the learning rate that is left after the loss has diverged."""
    is_finished: bool = False
    """The run is evaluated; whoever comes again only reports."""


def load(folder: Path) -> Recovery:
    """What was learned so far; nothing where it can't be read."""
    try:
        return Recovery(**json.loads((folder / RECOVERY).read_bytes()))
    except (OSError, ValueError, TypeError):
        return Recovery()


def save(folder: Path, recovery: Recovery) -> None:
    """Keep it for the attempts after this one."""
    replace_text(folder / RECOVERY, json.dumps(asdict(recovery)))


def out_of_memory(device: Literal["cpu", "cuda"]) -> OutOfMemory:
    """The device's memory is not enough, whatever the run does."""
    where = "GPU" if device == "cuda" else "pod"
    return OutOfMemory(f"The {where} has too little memory for the base model and its training.", _MORE[device])


def learn(found: Recovery, memory_deaths: int, device: Literal["cpu", "cuda"]) -> Recovery:
    """What follows from what the last attempt left, and from the pods that have died of memory by now.

    Args:
        found: What it left.
        memory_deaths: How many pods have.
        device: Whose memory an attempt may have been short of; of the pod's alone it dies.

    Raises:
        OutOfMemory: Two died of memory in their first steps, or nothing is left to try.
    """
    said = found.is_short
    short = found.is_short or memory_deaths > found.told_deaths
    found = replace(found, told_deaths=memory_deaths, is_short=False)
    if not found.is_trying:
        return replace(found, deaths=0)
    if not short:
        return found
    rows = found.micro_batch or 1
    if said and rows == 1 and found.checkpointing:
        raise out_of_memory(device)
    if not said and (found.deaths or (rows == 1 and found.checkpointing)):
        raise OutOfMemory(
            "Two attempts died of memory in their first steps, the second one with half the micro-batch: "
            "the pod has too little of it.",
            _MORE["cpu"],
        )
    deaths = found.deaths if said else 1
    return replace(found, deaths=deaths, most_rows=math.ceil(rows / 2), checkpointing=found.checkpointing or rows == 1)
