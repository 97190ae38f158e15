"""How many sequences go through the model at once, measured on short ones: no run begins with a failure.

Nothing is faster with more tokens than fill the device; what is left of its memory stays free.
"""

import math
from dataclasses import dataclass

import torch
from codetune_api.finetune import Parameters
from transformers.modeling_layers import GradientCheckpointingLayer

from codetune_trainer.train.model import footprint, losses
from codetune_trainer.train.model.footprint import Footprint, Kept
from codetune_trainer.train.model.modelling import Model, trainable_weights
from codetune_trainer.train.model.stepping import memory_errors

ENOUGH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens that fill a device."""
_PASSING = 1.3
"""A step's peak over what is kept for its backward pass: gradients and results on their way."""
_SHARE = 0.85
"""Of the free memory; the rest is for what is not a tensor."""


@dataclass(frozen=True)
class Sizing:
    """What fits."""

    rows: int
    """Sequences in one forward pass."""
    checkpointing: bool
    """Whether activations are computed twice: it was asked for, or not even one sequence fits otherwise."""


def choose_size(
    model: Model, parameters: Parameters, free_bytes: int | None, processes: int = 1, *, shared: bool = True
) -> Sizing:
    """The sequences that go through a PEFT model at once, spread evenly over the passes of a step.

    Args:
        model: As it will be trained.
        parameters: Of the run.
        free_bytes: Memory that is left on its device; None when nobody knows.
        processes: How many share a step.
        shared: Whether documents share a sequence.
    """
    weights = trainable_weights(model)
    sequences = math.ceil(parameters.batch_tokens // parameters.sequence_length / processes)
    enough = max(1, ENOUGH_TOKENS[weights[0].device.type] // parameters.sequence_length)
    asked = parameters.gradient_checkpointing
    if free_bytes is None:
        return Sizing(_spread(sequences, enough), asked)
    try:
        with memory_errors():
            found = footprint.measure(model, parameters.precision, parameters.sequence_length, shared=shared)
    except torch.OutOfMemoryError:
        if parameters.sharded:  # the other processes wait for this one's part of a layer
            raise
        return Sizing(1, True)
    room = _SHARE * free_bytes - _count_fixed_bytes(model, sharded=parameters.sharded)
    fitting, checkpointing = choose_rows(found, room, checkpointing=asked)
    return Sizing(_spread(sequences, max(1, min(enough, fitting))), checkpointing)


def choose_rows(found: Footprint, room: float, *, checkpointing: bool) -> tuple[int, bool]:
    """How many sequences fit, 0 when none does, and whether activations are computed twice for that.

    Args:
        found: What the sequences keep.
        room: Bytes for them.
        checkpointing: Whether it is asked for.
    """
    whole = 0 if checkpointing else _count_fitting(found.whole, room)
    return (whole, False) if whole else (_count_fitting(found.recomputed, room), True)


def _count_fitting(kept: Kept, room: float) -> int:
    return max(0, int((room - kept.constant) // (_PASSING * kept.row)))


def _count_fixed_bytes(model: Model, *, sharded: bool) -> int:
    """What training takes besides, whatever the sequences: gradient and two moments of each weight, pieces of logits,
    and where layers are spread the two that are whole at a time."""
    trained = 3 * sum(weight.nbytes for weight in trainable_weights(model))
    head = 3 * 4 * losses.CHUNK * int(model.get_output_embeddings().weight.shape[0])
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    gathered = max((sum(weight.nbytes for weight in layer.parameters()) for layer in layers), default=0)
    return trained + head + (2 * gathered if sharded else 0)


def _spread(sequences: int, most: int) -> int:
    """Rows of a pass when a step takes as few passes as it can."""
    return math.ceil(sequences / math.ceil(sequences / most))
