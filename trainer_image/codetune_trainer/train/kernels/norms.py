"""Root-mean-square normalization (arXiv:1910.07467) with few passes over memory, forwards and backwards."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from codetune_trainer.train.kernels.comparing import is_same


class RmsNorm(torch.autograd.Function):
    """y = x / rms(x) · gain over the last dimension; the gain is frozen.

    With r = 1 / rms(x) and u = g · gain: dx = r u - x r³ mean(u x). Sums are taken in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gain: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = _widen(x)
        squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
        inverse = squares.div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        result: torch.Tensor = (wide * inverse).mul_(gain)
        return result.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        wide = _widen(x)
        scaled = _widen(upstream[0]) * gain
        share = (scaled * wide).mean(-1, keepdim=True).mul_(inverse.pow(3))
        return scaled.mul_(inverse).addcmul_(wide, share, value=-1).to(x.dtype), None, None


def _widen(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def replace_norms(model: nn.Module) -> int:
    """Give the RMS norms of a frozen model the forward pass above where it says the same; returns how many."""
    count = 0
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            count += _replace(module)
    return count


def _replace(module: Any) -> bool:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    names = [name for name, _ in module.named_parameters()]
    one_input = len(inspect.signature(module.forward).parameters) == 1
    if names != ["weight"] or module.weight.requires_grad or not isinstance(epsilon, float) or not one_input:
        return False
    weight = module.weight.detach()
    sample = torch.randn(3, weight.shape[-1], generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        stock = module(sample)
    for gain in (_widen(weight), _widen(weight) + 1):  # Llama's formula; Gemma's, whose weight is the distance to one
        forward = _build_forward(gain, epsilon)
        if is_same(forward(sample), stock):
            module.forward = forward
            return True
    return False


def _build_forward(gain: torch.Tensor, epsilon: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = RmsNorm.apply(x, gain, epsilon)  # type: ignore[no-untyped-call]
        return result

    return forward
