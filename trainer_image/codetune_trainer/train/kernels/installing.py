"""Puts the kernels into a model, where they are faster: on a CPU. A GPU has better ones in its libraries."""

import logging
from typing import Any

from codetune_trainer.train.kernels import attention
from codetune_trainer.train.kernels.gating import replace_gates
from codetune_trainer.train.kernels.lora import fuse_lora
from codetune_trainer.train.kernels.norms import replace_norms
from codetune_trainer.train.kernels.rotary import replace_rotary

_log = logging.getLogger(__name__)


def speed_up_base(base: Any, *, shared: bool) -> None:
    """Replace what a frozen base model on a CPU spends time on; before an adapter is added.

    Args:
        base: A causal model of transformers.
        shared: Whether the documents of a sequence are kept apart by its attention mask alone.
    """
    if base.device.type != "cpu":
        return
    replaced = {"norms": replace_norms(base), "gates": replace_gates(base), "rotary": replace_rotary(base)}
    if shared and base._supports_attention_backend and base.config._attn_implementation == "sdpa":
        attention.register()
        base.set_attn_implementation(attention.NAME)
    _log.info("Kernels of our own: %s, attention %s", replaced, base.config._attn_implementation)


def speed_up_adapter(model: Any) -> None:
    """Fuse the LoRA layers of a PEFT model; the products are the same on every device."""
    _log.info("LoRA layers that compute as one operation: %d", fuse_lora(model))
