"""The gated half of an MLP, activation(gate) · up, which keeps its two inputs only (SwiGLU; arXiv:2002.05202)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from codetune_trainer.train.kernels.comparing import is_same

# Activation of `gate`, and the gradient of `gate` out of that of the activation: torch's own kernels.
_ACTIVATIONS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "silu": (functional.silu, torch.ops.aten.silu_backward),
    "gelu": (functional.gelu, torch.ops.aten.gelu_backward),
    "gelu_tanh": (
        lambda gate: functional.gelu(gate, approximate="tanh"),
        lambda upstream, gate: torch.ops.aten.gelu_backward(upstream, gate, approximate="tanh"),
    ),
}


class GatedProduct(torch.autograd.Function):
    """activation(gate) · up, element by element."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return _ACTIVATIONS[kind][0](gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        activate, differentiate = _ACTIVATIONS[ctx.kind]
        return differentiate(upstream[0] * up, gate), activate(gate).mul_(upstream[0]), None


def replace_gates(model: nn.Module) -> int:
    """Give the gated MLPs of a model without adapter the product above where it says the same; returns how many."""
    found = [module for module in model.modules() if _is_gated(module)]
    return sum(map(_replace, found))


def _is_gated(module: nn.Module) -> bool:
    parts = ("gate_proj", "up_proj", "down_proj")
    layers = [getattr(module, name, None) for name in parts]
    plain = all(isinstance(layer, nn.Linear) and layer.weight.is_floating_point() for layer in layers)
    return plain and hasattr(module, "act_fn")


def _replace(module: Any) -> bool:
    weight = module.gate_proj.weight
    sample = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.device, weight.dtype)
    with torch.no_grad():
        stock = module(sample)
        for kind in _ACTIVATIONS:
            forward = _build_forward(module, kind)
            if is_same(forward(sample), stock):
                module.forward = forward
                return True
    return False


def _build_forward(module: Any, kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        # The layers are looked up at each call: an adapter puts others in their place.
        product = GatedProduct.apply(module.gate_proj(x), module.up_proj(x), kind)  # type: ignore[no-untyped-call]
        result: torch.Tensor = module.down_proj(product)
        return result

    return forward
