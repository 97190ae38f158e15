"""What forward passes keep for their backward passes: measured on short sequences, foreseen for long ones.

What is kept of a sequence grows with its tokens and, where scores or masks are kept, with their square; the rest is the
same for every pass, such as copies of the adapter's weights in half precision. Three lengths tell the three apart.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer

from codetune_trainer.train.data.packing import pack
from codetune_trainer.train.model import losses
from codetune_trainer.train.model.modelling import Model
from codetune_trainer.train.model.stepping import RandomState, autocast

_SAMPLE_TOKENS = 128
"""In the shortest sequence that is measured, at most; the others are twice and three times as long."""


@dataclass(frozen=True)
class Kept:
    """Bytes that a pass keeps; weights left out."""

    constant: float
    """However many sequences it has."""
    row: float
    """For each sequence."""


@dataclass(frozen=True)
class Footprint:
    """What passes over sequences of one length keep."""

    whole: Kept
    """When everything is kept."""
    recomputed: Kept
    """With gradient checkpointing: what goes into each layer, and what one layer keeps while it is computed again."""


class _Ledger:
    """Storages, each counted once. It holds them, so that no other one takes the place of one that is gone."""

    def __init__(self, known: set[int]) -> None:
        self.known = known
        self._found: dict[int, torch.UntypedStorage] = {}

    def note(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage unless it is known or counted."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self._found[storage.data_ptr()] = storage

    def names(self) -> set[int]:
        """Of all storages that are known or counted."""
        return self.known | self._found.keys()

    def count(self, besides: set[int] | None = None) -> int:
        """Bytes of what has been counted, besides those of some names."""
        return sum(storage.nbytes() for name, storage in self._found.items() if name not in (besides or ()))


def measure(model: Model, precision: str, length: int, *, shared: bool) -> Footprint:
    """What passes in training keep, found out on short sequences; the model and the random numbers stay as they are.

    Args:
        model: A PEFT model.
        precision: As in `Parameters`.
        length: Tokens in the sequences of the passes.
        shared: Whether documents share a sequence.
    """
    step = min(_SAMPLE_TOKENS, length // 3)
    random, was_training = RandomState.take(), model.training
    model.train()
    try:
        found = [_measure_pass(model, precision, tokens, shared) for tokens in (step, 2 * step, 3 * step)]
    finally:
        model.train(was_training)
        random.restore()
    whole, recomputed = zip(*found, strict=True)
    return Footprint(_foresee(step, whole, length), _foresee(step, recomputed, length))


def _foresee(step: int, found: tuple[int, ...], length: int) -> Kept:
    """The parabola through what sequences of one, two and three steps keep (Newton's form), without a falling slope."""
    first, second = found[1] - found[0], found[2] - found[1]
    bend = max(0, second - first) / 2
    slope = first if bend else (first + second) / 2
    at = length / step
    return Kept(max(0.0, found[0] - slope + 2 * bend), slope * at + bend * at * (at - 3))


def _measure_pass(model: Model, precision: str, length: int, shared: bool) -> tuple[int, int]:
    """(bytes that are kept, the same with gradient checkpointing) of one sequence."""
    device = next(weight for weight in model.parameters() if weight.requires_grad).device
    outside = _Ledger({_local(weight).untyped_storage().data_ptr() for weight in model.parameters()})
    inputs = _Ledger(outside.known)
    layers: list[int] = []
    # Two documents where there may be two: their mask counts too.
    pieces = [[0] * (length - 1), [0]] if shared else [[0] * length]
    sample = pack(pieces, length, padding=0).to(device)

    def note(tensor: torch.Tensor) -> torch.Tensor:
        outside.note(tensor)
        return tensor

    with ExitStack() as watching:
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                watching.enter_context(_watch(layer, inputs, layers))
        with saved_tensors_hooks(note, lambda tensor: tensor), autocast(precision, device):
            losses.sum_loss(model, sample)
    rest = outside.count(besides=inputs.names())  # gradient checkpointing that is on already saves the inputs itself
    return rest + sum(layers), rest + inputs.count() + max(layers, default=0)


def _local(weight: torch.Tensor) -> torch.Tensor:
    """This process's part of a weight that is spread over several."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


@contextmanager
def _watch(layer: Any, inputs: _Ledger, kept: list[int]) -> Iterator[None]:
    """Note what goes into a layer, and how much it keeps: which is let go at once, for no backward pass follows."""
    stock, replaced = layer.forward, vars(layer).get("forward")

    def forward(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():  # the loss tries the model's head out before it is first taken
            return stock(*arguments, **options)
        ledger = _Ledger(inputs.names())
        for tensor in tree_leaves((arguments, options)):
            if isinstance(tensor, torch.Tensor):
                inputs.note(tensor)
        with saved_tensors_hooks(ledger.note, lambda nothing: nothing):
            result = stock(*arguments, **options)
        kept.append(ledger.count())
        return result

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if replaced is not None:
            layer.forward = replaced
