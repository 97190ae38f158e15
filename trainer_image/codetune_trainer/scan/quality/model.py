"""Measures texts under a base model: mean cross-entropy per token, on the parts that training is made of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers.utils import logging as transformers_logging

from codetune_trainer.architectures import load_model_config
from codetune_trainer.errors import OutOfMemory
from codetune_trainer.scan.quality.cache import Measured
from codetune_trainer.scan.quality.measuring import MOST_TOKENS
from codetune_trainer.train import machine
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.data.packing import cut_pieces, pack
from codetune_trainer.train.kernels.installing import speed_up_base
from codetune_trainer.train.model import modelling
from codetune_trainer.train.model.losses import token_losses
from codetune_trainer.train.model.stepping import autocast, memory_errors

GROUP_TEXTS = {"cpu": 4, "cuda": 64}
"""Texts after which losses are kept: few enough that a kill loses little."""


@dataclass(frozen=True)
class ModelMeter:
    """A base model that measures texts.

    Of a text the first `MOST_TOKENS` tokens count, in windows of `length` tokens that know nothing of each other.
    """

    model: modelling.Model
    encoder: Encoder
    length: int
    precision: Literal["BFloat16", "Float32"]
    device: torch.device

    @property
    def group_texts(self) -> int:
        """How many texts are measured, and then kept, together."""
        return GROUP_TEXTS[self.device.type]

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        """The loss of each text; 0 over 0 tokens where a text has no token with another before it.

        Raises:
            OutOfMemory: The model does not fit beside what is computed.
        """
        return [self._measure(text) for text in texts]

    def _measure(self, text: str) -> Measured:
        # One text a pass: its loss must not depend, not even in the last place, on what other files there are.
        tokens = self.encoder.encode_one(text)[:MOST_TOKENS]
        pieces = cut_pieces(tokens, self.length, self.encoder.begin)
        longest = max(map(len, pieces), default=0)
        packed = pack(pieces, longest, self.encoder.padding, shared=False)
        if not packed.targets:
            return Measured(0.0, 0)
        with _memory(self.device), autocast(self.precision, self.device):
            losses = token_losses(self.model, packed.to(self.device))
        return Measured(round(losses.double().mean().item(), 3), packed.targets)


def load_meter(folder: Path, uri: str, device: Literal["cpu", "cuda"]) -> ModelMeter:
    """Load a base model to measure with.

    Args:
        folder: Where it lies.
        uri: By what name a person knows it.
        device: Where it computes.

    Raises:
        ModelNotFound, UnsupportedModel, OutOfMemory, DeviceMissing: It can't be used here.
    """
    transformers_logging.disable_progress_bar()
    place = machine.find_device(device)
    torch.set_num_threads(machine.count_threads())
    config = load_model_config(folder, uri)
    encoder = build_encoder(modelling.load_tokenizer(folder, uri))
    length = min(MOST_TOKENS, getattr(config.get_text_config(), "max_position_embeddings", None) or MOST_TOKENS)
    precision: Literal["BFloat16", "Float32"] = "BFloat16" if machine.has_fast_bf16(place) else "Float32"
    with _memory(place):
        model = modelling.load_base(folder, uri, precision, place)
    model.eval()
    speed_up_base(model, shared=modelling.can_share_sequences(config, length))
    return ModelMeter(model, encoder, length, precision, place)


@contextmanager
def _memory(device: torch.device) -> Iterator[None]:
    """Say what a failed allocation means."""
    try:
        with memory_errors():
            yield
    except torch.OutOfMemoryError as error:
        where = "GPU" if device.type == "cuda" else "pod"
        message = f"The {where} has too little memory for the model of files.quality."
        raise OutOfMemory(message, "Raise files.quality.resources.memory, or take a smaller model.") from error
