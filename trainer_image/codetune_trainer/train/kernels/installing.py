"""Puts the kernels into a model where they are faster: on a CPU. A GPU has better ones in its libraries."""

from typing import Any

from codetune_trainer.train.kernels import attention
from codetune_trainer.train.kernels.gating import replace_gates
from codetune_trainer.train.kernels.lora import fuse_lora
from codetune_trainer.train.kernels.norms import replace_norms
from codetune_trainer.train.kernels.rotary import replace_rotary


def speed_up_base(base: Any, *, shared: bool) -> dict[str, Any]:
    """Replace what a frozen base model on a CPU spends time on; before an adapter is added.

    Args:
        base: A causal model of transformers.
        shared: Whether the documents of a sequence are kept apart by its attention mask alone.

    Returns:
        What was replaced: how many norms and gated MLPs, whether the rotation, and which attention is used.
    """
    if base.device.type != "cpu":
        return {}
    replaced = {"norms": replace_norms(base), "gates": replace_gates(base), "rotary": replace_rotary(base)}
    if shared and base._supports_attention_backend and base.config._attn_implementation == "sdpa":
        attention.register()
        base.set_attn_implementation(attention.NAME)
    return {**replaced, "attention": base.config._attn_implementation}


def speed_up_adapter(model: Any) -> int:
    """Fuse the LoRA layers of a PEFT model, on every device; returns how many."""
    return fuse_lora(model)
