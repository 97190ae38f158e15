"""Root-mean-square normalization (arXiv:1910.07467) with few passes over memory, forwards and backwards."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable


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
        return (wide * inverse).mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        wide = _widen(x)
        scaled = _widen(upstream[0]) * gain
        share = (scaled * wide).mean(-1, keepdim=True).mul_(inverse.pow(3))
        return scaled.mul_(inverse).addcmul_(wide, share, value=-1).to(x.dtype), None, None


def _widen(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


# Llama's formula, and Gemma's, whose weight is the distance to one.
_GAINS = (lambda weight: weight, lambda weight: weight + 1)


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
    if names != ["weight"] or module.weight.requires_grad or not isinstance(epsilon, float):
        return False
    sample = torch.randn(3, module.weight.shape[-1], generator=torch.Generator().manual_seed(0))
    sample = sample.to(module.weight.device, module.weight.dtype)
    with torch.no_grad():
        stock = module(sample)
    for gain_of in _GAINS:
        gain = _widen(gain_of(_widen(module.weight.detach())))
        ours = RmsNorm.apply(sample, gain, epsilon)  # type: ignore[no-untyped-call]
        if ours.dtype == stock.dtype and torch.allclose(ours.float(), stock.float(), rtol=_rounding(sample), atol=1e-5):
            module.forward = lambda x, gain=gain, epsilon=epsilon: RmsNorm.apply(x, gain, epsilon)
            return True
    return False


def _rounding(sample: torch.Tensor) -> float:
    """How far two ways to compute the same may differ: some roundings of the number format."""
    return 4 * torch.finfo(sample.dtype).eps
