"""How many sequences go through the model at once, measured on a short one: no run begins with a failure.

Nothing is faster with more tokens than fill the device; what is left of its memory stays free.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from codetune_api.finetune import Parameters

from codetune_trainer.train import losses
from codetune_trainer.train.modelling import Model
from codetune_trainer.train.packing import pack
from codetune_trainer.train.stepping import RandomState, autocast

ENOUGH_TOKENS = {"cpu": 1024, "cuda": 16_384}
"""Tokens that fill a device."""
_SAMPLE_TOKENS = 64
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
    """Whether not even one fits, unless activations are computed twice."""


def choose_size(model: Model, parameters: Parameters, free_bytes: int | None, processes: int = 1) -> Sizing:
    """The sequences that go through a PEFT model at once, spread evenly over the passes of a step.

    Args:
        model: As it will be trained.
        parameters: Of the run.
        free_bytes: Memory that is left on its device; None when nobody knows.
        processes: How many share a step.
    """
    device = next(model.parameters()).device
    sequences = math.ceil(parameters.batch_tokens // parameters.sequence_length / processes)
    enough = max(1, ENOUGH_TOKENS[device.type] // parameters.sequence_length)
    if free_bytes is None or parameters.gradient_checkpointing:
        return Sizing(_spread(sequences, enough), parameters.gradient_checkpointing)
    head = 3 * 4 * losses.CHUNK * model.get_output_embeddings().weight.shape[0]
    row = _PASSING * kept_bytes_a_token(model, parameters.precision) * parameters.sequence_length
    fitting = int((_SHARE * free_bytes - head) // row)
    return Sizing(_spread(sequences, max(1, min(enough, fitting))), fitting < 1)


def _spread(sequences: int, most: int) -> int:
    """Rows of a pass when a step takes as few passes as it can."""
    return math.ceil(sequences / math.ceil(sequences / most))


def kept_bytes_a_token(model: Model, precision: str) -> float:
    """Bytes that a forward pass in training keeps for the backward pass, for each token; weights left out."""
    device = next(model.parameters()).device
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage: Any = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    sample = pack([[0] * _SAMPLE_TOKENS], _SAMPLE_TOKENS, padding=0).to(device)
    random, was_training = RandomState.take(), model.training
    model.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast(precision, device):
            loss = losses.sum_loss(model, sample)
        del loss  # until here, what is noted stays where it is
    finally:
        model.train(was_training)
        random.restore()
    return sum(kept.values()) / _SAMPLE_TOKENS
