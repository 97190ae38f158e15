"""Rotary position embedding (arXiv:2104.09864, halves rotated as in Llama) in fewer passes and copies than stock."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from codetune_trainer.train.kernels.comparing import is_same

_FUNCTION = "apply_rotary_pos_emb"
_ARGUMENTS = ["q", "k", "cos", "sin", "unsqueeze_dim"]


class Rotation(torch.autograd.Function):
    """x: [b, h, n, d]; cos, sin: broadcast to it. [x1, x2] becomes [x1 cos1 - x2 sin1, x2 cos2 + x1 sin2]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        half = x.shape[-1] // 2
        result = x * cos
        result[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        result[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        gradient = upstream[0]
        half = gradient.shape[-1] // 2
        result = gradient * cos
        result[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        result[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
        return result, None, None


def replace_rotary(model: nn.Module) -> bool:
    """Let the model's own module use the rotation above where it says the same; returns whether it does.

    The function is a global of the model's module in transformers: all models of that family in this process take it.
    """
    module = sys.modules[type(model).__module__]
    stock = getattr(module, _FUNCTION, None)
    if stock is None or list(inspect.signature(stock).parameters) != _ARGUMENTS:
        return False
    if getattr(stock, "codetune_stock", None) is None:
        if not _says_the_same(stock):
            return False
        setattr(module, _FUNCTION, _wrap(stock))
    return True


def _wrap(stock: Callable[..., Any]) -> Callable[..., Any]:
    def rotate(q: Any, k: Any, cos: Any, sin: Any, unsqueeze_dim: int = 1) -> Any:
        if not q.shape[-1] == k.shape[-1] == cos.shape[-1] == sin.shape[-1] or q.dtype != cos.dtype:
            return stock(q, k, cos, sin, unsqueeze_dim)  # only a part of each head is rotated, or in another format
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return Rotation.apply(q, cos, sin), Rotation.apply(k, cos, sin)  # type: ignore[no-untyped-call]

    rotate.codetune_stock = stock  # type: ignore[attr-defined]
    return rotate


def _says_the_same(stock: Callable[..., Any]) -> bool:
    chance = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 3, 8, generator=chance) for heads in (4, 2))
    # Halves that differ, which no real model has, so that every place is checked.
    cos, sin = (torch.randn(2, 3, 8, generator=chance) for _ in range(2))
    return all(
        is_same(mine, other)
        for mine, other in zip(_wrap(stock)(query, key, cos, sin), stock(query, key, cos, sin), strict=True)
    )
