"""Where LoRA goes: the linear layers of attention and MLPs that vLLM serves an adapter on."""

from dataclasses import dataclass
from typing import Any

from codetune_trainer.errors import UnsupportedModel
from codetune_trainer.train.model.modelling import linear_modules

# Routers and gates choose experts; a small change there sends tokens elsewhere, and vLLM's kernels read them directly.
ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
# Latent attention: vLLM multiplies this matrix into others when it loads the model, so an update would never be seen.
ABSORBED = frozenset({"kv_b_proj"})
# Model types that vLLM (0.32) serves, but with no adapter: a server with one does not start.
WITHOUT_ADAPTERS = frozenset({
    "bloom", "cohere2_moe", "dbrx", "falcon", "falcon_mamba", "gemma3n", "gemma3n_text", "gptj", "hrm_text", "mamba",
    "mamba2", "mimo_v2_flash", "stablelm", "zamba2",
})  # fmt: skip
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Targets:
    """Layers for an adapter."""

    modules: list[str]
    """Names of linear layers, sorted."""
    notes: list[str]
    """What is left out, and why."""


def choose_targets(config: Any, uri: str) -> Targets:
    """The layers of a model that an adapter goes on unless it is told otherwise. Raises: UnsupportedModel."""
    hint = "Choose a model of a family that vLLM serves with LoRA, such as Qwen2.5-Coder or StarCoder2."
    if config.model_type in WITHOUT_ADAPTERS:
        text = f"{uri} is a {config.model_type} model, on which vLLM serves no adapter."
        raise UnsupportedModel(text, hint)
    found = linear_modules(config, uri)
    modules = [name for name in found if name not in ROUTERS | ABSORBED]
    if not modules:
        text = f"{uri} ({config.model_type}) has no linear layer that vLLM serves an adapter on"
        raise UnsupportedModel(f"{text}, only {', '.join(found)}.", hint)
    return Targets(modules, [_EXPERTS_STAY] if count_experts(config) > 1 else [])


_EXPERTS_STAY = (
    "The adapter goes on attention and shared layers only: which form of an adapter on experts vLLM serves differs "
    "from model to model."
)


def count_experts(config: Any) -> int:
    """How many experts the layers of a model choose from; 0 where there are none."""
    text = config.get_text_config()
    return max((getattr(text, name, None) or 0 for name in _EXPERT_COUNTS), default=0)
