"""The processes that train one model together, in lockstep: each does every step on its share of the batch.

All of them hold the same adapter, optimizer and position, so that any number of processes can go on from a checkpoint.
Whatever decides what comes next is agreed upon here; only the first process, the leader, writes and speaks.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
from torch import distributed

from codetune_trainer.errors import PeerLost, PeerMissing

_PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: for a large dataset, the leader tokenizes while they do."""

_SIGNS = ("gloo", "by peer", "Broken pipe", "ncclRemoteError", "by remote peer")
"""In what gloo and NCCL say of a process that is gone."""
_OWN_FAULT = "enforce fail"
"""In what gloo says of a message that is not what it expected, or of a network that it can't use."""


@dataclass(frozen=True)
class Group:
    """One process among those of its run; alone, none of this costs anything."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """Processes on this machine."""

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def agree(self, word: int) -> int:
        """The greatest word of all processes. Raises: PeerLost, as everything below."""
        if self.size == 1:
            return word
        words = torch.tensor(word, dtype=torch.int64)
        with peer_errors():
            distributed.all_reduce(words, distributed.ReduceOp.MAX)
        return int(words)

    def add(self, number: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return number
        numbers = torch.tensor(number, dtype=torch.float64)
        with peer_errors():
            distributed.all_reduce(numbers)
        return numbers.item()

    def add_gradients(self, weights: Sequence[torch.nn.Parameter], before: Callable[[], None]) -> None:
        """Every gradient becomes the sum over all processes.

        Args:
            weights: Who has the gradients.
            before: Called when the memory is taken that this needs: who has none must not be waited for.
        """
        if self.size == 1:
            return
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = torch.cat([gradient.flatten() for gradient in gradients])  # one message is faster than hundreds
        before()
        with peer_errors():
            distributed.all_reduce(flat)
        for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
            weight.grad = part.view_as(weight)

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """The leader's tensor in place of everybody's own."""
        if self.size > 1:
            with peer_errors():
                distributed.broadcast(tensor, 0)
        return tensor

    def lead(self, work: Callable[[], str]) -> str:
        """What the leader's work gives; the others wait for it and do none."""
        if self.size == 1:
            return work()
        said = torch.tensor(list(json.dumps(work()).encode()) if self.leads else [], dtype=torch.uint8)
        length = self.spread(torch.tensor(len(said)))
        told = self.spread(said if self.leads else torch.empty(int(length), dtype=torch.uint8))
        return str(json.loads(bytes(told.tolist())))

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The others begin when the leader is done, and find in the store what it left there."""
        if not self.leads:
            self.agree(0)
        yield
        if self.leads:
            self.agree(0)

    def take_turns(self, rows: int, at_once: int) -> Iterator[tuple[slice, bool]]:
        """Which of so many rows are this process's in each pass, and whether they count.

        All processes make the same number of passes, because some models exchange weights in each; who has nothing left
        repeats the first row for nothing.
        """
        for start in range(0, rows, at_once * self.size):
            first = start + at_once * self.rank
            yield (slice(first, first + at_once), True) if first < rows else (slice(0, 1), False)


ALONE = Group()


def join(device: Literal["cpu", "cuda"]) -> Group:
    """The group that torchrun started this process in. Raises: PeerMissing, PeerLost."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    local = int(os.environ["LOCAL_RANK"])
    has_device = device == "cpu" or local < torch.cuda.device_count()
    if device == "cuda" and has_device:
        torch.cuda.set_device(local)
    group = Group(int(os.environ["RANK"]), size, int(os.environ["LOCAL_WORLD_SIZE"]))
    # NCCL's own watch over lost processes stays as torchrun sets it (they are aborted). TORCH_NCCL_BLOCKING_WAIT would
    # take that watch away, and since PyTorch 2.8 sums that are not asynchronous are not waited for in its place.
    with _meeting_errors():
        distributed.init_process_group("cpu:gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=_PATIENCE)
    # Who lacks its GPU says so by itself; NCCL would wait for it.
    if not group.agree(not has_device) and device == "cuda":
        with _meeting_errors():
            # NCCL connects with the first sum only. Now nothing is lost, and what fails is no peer that went away.
            distributed.all_reduce(torch.zeros(1, device=device))
            torch.cuda.synchronize()
    return group


@contextmanager
def peer_errors() -> Iterator[None]:
    """The backends have no common error for a process that is gone. Raises: PeerLost."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        words = str(error)
        if _OWN_FAULT in words or not any(sign in words for sign in _SIGNS):
            raise
        raise PeerLost(f"Another process of this run is gone: {words}", "The run starts again by itself.") from error


@contextmanager
def _meeting_errors() -> Iterator[None]:
    """Before anything was done together. Raises: PeerMissing, with the backend's own words."""
    try:
        yield
    except RuntimeError as error:
        raise PeerMissing(
            f"The processes of this run can't reach each other: {error}",
            "Check that the pods of the run may reach each other on any port (NetworkPolicy, service mesh), their "
            "network interfaces, and the GPU driver of the nodes.",
        ) from error
