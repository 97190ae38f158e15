"""Whether a model's logits are its output head's product with the last hidden states, and nothing else.

Some models scale, cap or mask logits after their head, or scale what goes into it, each by a setting with another name.
So this is found out: made-up logits, as large as real ones are, are put in the place of the head's, and must come out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from codetune_trainer.train.kernels.lora import FusedLinear

_ANSWER = "codetune_has_plain_logits"
"""The attribute of a model that keeps what was found out."""
_TOKENS = 16
_LARGEST = 50.0
"""Above every cap of logits that models have."""


def has_plain_logits(causal: Any) -> bool:
    """Whether logits can be taken from the last hidden states by the head's weights; found out once for each model."""
    found: bool | None = getattr(causal, _ANSWER, None)
    if found is None:
        found = type(causal.get_output_embeddings()) in (nn.Linear, FusedLinear) and _comes_through(causal)
        setattr(causal, _ANSWER, found)
    return found


@torch.no_grad()
def _comes_through(causal: Any) -> bool:
    """One short pass, as in evaluation: it draws no random number, whose order a resumed run has to keep."""
    was_training = causal.training
    tokens = torch.zeros(1, _TOKENS, dtype=torch.long, device=next(causal.parameters()).device)
    causal.eval()
    try:
        with _replacing_logits(causal) as seen:
            logits = causal(input_ids=tokens, use_cache=False).logits
    finally:
        causal.train(was_training)
    if not {"hidden", "input", "made up"} <= seen.keys():
        return False
    return torch.equal(seen["input"], seen["hidden"]) and torch.equal(logits.float(), seen["made up"].float())


@contextmanager
def _replacing_logits(causal: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Fills in the last hidden states, the head's input and what is passed off as its output."""
    seen: dict[str, torch.Tensor] = {}

    def note_hidden(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is not None:
            seen["hidden"] = hidden

    def make_up(_module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        values = torch.linspace(-_LARGEST, _LARGEST, output.numel(), device=output.device)
        seen["input"], seen["made up"] = inputs[0], values.to(output.dtype).view_as(output)
        return seen["made up"]

    hooks = [
        causal.base_model.register_forward_hook(note_hidden),
        causal.get_output_embeddings().register_forward_hook(make_up),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
