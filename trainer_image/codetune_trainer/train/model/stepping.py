"""One optimizer step, exact whatever the size of the micro-batches."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from codetune_api.presets import CLIP_NORM

from codetune_trainer.train.data.packing import Packed
from codetune_trainer.train.group import ALONE, Group
from codetune_trainer.train.model.losses import sum_loss
from codetune_trainer.train.model.modelling import DTYPES, Model, trainable_weights

_NO_MEMORY = re.compile("can't allocate memory|out of memory|_ALLOC_FAILED|_ALLOCATION_FAILED", re.IGNORECASE)
"""In plain RuntimeErrors: PyTorch's allocator for the CPU; CUDA, Triton and NCCL; cuBLAS and its like; cuDNN 9."""


@dataclass(frozen=True)
class RandomState:
    """Where the random number generators are: what dropout will drop next."""

    cpu: torch.Tensor
    cuda: torch.Tensor | None

    @classmethod
    def take(cls) -> "RandomState":
        """Now."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None)

    def restore(self) -> None:
        """Go back to it."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.cuda)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Adapter weights stay in float32; their products are taken in the precision of the frozen weights."""
    enabled = precision != "Float32"
    return torch.autocast(device.type, dtype=DTYPES[precision] if enabled else torch.bfloat16, enabled=enabled)


def accumulate(
    model: Model, batch: Packed, rows: int, precision: str, between: Callable[[], None], group: Group = ALONE
) -> float:
    """Leave the gradients of the batch's mean loss in the weights; returns that loss, in nats per token.

    Args:
        model: A PEFT model in training mode, its gradients cleared.
        batch: Sequences of one optimizer step, of all processes together.
        rows: Sequences in one forward pass.
        precision: As in `Parameters`.
        between: Called before each forward pass, and in a group before the sums; what it raises ends the step.
        group: Who shares the batch.
    """
    weights = trainable_weights(model)
    device = weights[0].device
    targets = max(batch.targets, 1)
    total = torch.zeros((), device=device)
    for mine, counts in group.take_turns(len(batch), rows):
        between()
        with autocast(precision, device):
            loss = sum_loss(model, batch.choose(mine).to(device)) * (1 if counts else 0)
        loss.backward()
        total += loss.detach()
    group.add_gradients(weights, between)
    # Sums are divided once, here and in float32: exact however the targets spread over the micro-batches, and no small
    # factor meets half precision on the way.
    for weight in weights:
        if weight.grad is not None:
            weight.grad.div_(targets)
    return group.add(total.item()) / targets


def prepare(optimizer: torch.optim.Optimizer) -> None:
    """Take the memory for AdamW's state as its first step would: one that fails half-way could not be made again."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if not optimizer.state[weight]:
                count = torch.zeros((), dtype=torch.float32, device=weight.device)
                optimizer.state[weight] = {
                    "step": count,
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }


def apply_gradients(model: Model, optimizer: torch.optim.Optimizer, rate: float, loss: float) -> float:
    """Clip, step, clear; returns the norm of the gradient before clipping.

    Where that or the loss is no number, weights and optimizer stay as they are.
    """
    norm = torch.nn.utils.clip_grad_norm_(trainable_weights(model), CLIP_NORM).item()
    for group in optimizer.param_groups:
        group["lr"] = rate
    if math.isfinite(norm) and math.isfinite(loss):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """PyTorch's several ways to say that memory is short become one. Raises: torch.OutOfMemoryError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not _NO_MEMORY.search(str(error)):
            raise
        raise torch.OutOfMemoryError(str(error)) from error
