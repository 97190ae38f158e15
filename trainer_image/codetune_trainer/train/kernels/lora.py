"""A linear layer with its LoRA as one operation, which keeps nothing but `x` and `x A^T`, which has few columns.

y = x W^T + b + s · drop(x) A^T B^T (arXiv:2106.09685). W and b are frozen: their gradients are never computed.
"""

import math
from typing import Any

import torch
from peft.tuners import lora
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

RARE = 1 / 8
"""Up to this share, the places of what is dropped take less memory, 8 bytes each, than a mask of one byte for all."""


class LoraProduct(torch.autograd.Function):
    """x: [n, in]; weight: [out, in]; bias: [out] or None; down: [r, in]; up: [out, r]; returns [n, out].

    Backward, with g the gradient of y and e = s · g B: dx = g W + drop(e A), dA = e^T drop(x) and
    dB = s · g^T (drop(x) A^T), where drop is the one of the forward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        choice = choose_dropped(x, dropout) if dropout else None
        down, up = down.to(x.dtype), up.to(x.dtype)
        narrow = drop(x, choice, dropout) @ down.t()
        result = functional.linear(x, weight, bias)
        result.addmm_(narrow, up.t(), alpha=scaling)
        ctx.save_for_backward(x, weight, down, up, narrow, choice)
        ctx.scaling, ctx.dropout = scaling, dropout
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, narrow, choice = ctx.saved_tensors
        gradient = upstream[0]
        narrow_gradient = (gradient @ up).mul_(ctx.scaling)
        # Its transpose: a product with few columns is faster than one with few rows.
        of_down = (drop(x, choice, ctx.dropout).t() @ narrow_gradient).t()
        of_up = (gradient.t() @ narrow).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            if choice is None:
                of_x.addmm_(narrow_gradient, down)
            else:
                of_x.add_(drop(narrow_gradient @ down, choice, ctx.dropout))
        return of_x, None, None, of_down, of_up, None, None


def choose_dropped(x: torch.Tensor, dropout: float) -> torch.Tensor:
    """Where to drop, each element with the same probability: a mask of what is kept, or places in the flattened `x`.

    A CPU draws random numbers one by one. So it draws how far it is from one dropped element to the next, which is
    distributed geometrically: as many numbers as elements are dropped, not as there are.
    """
    if x.device.type != "cpu" or dropout > RARE:
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - dropout)
    expected = x.numel() * dropout
    enough = math.ceil(expected + 6 * math.sqrt(expected)) + 6  # six deviations: the end is reached, or as good as
    places = torch.empty(enough, dtype=torch.long).geometric_(dropout).cumsum_(0).sub_(1)
    return places[: int(torch.searchsorted(places, x.numel()))]


def drop(x: torch.Tensor, choice: torch.Tensor | None, dropout: float) -> torch.Tensor:
    """Zero what was chosen; the rest is scaled so that the mean stays."""
    if choice is None:
        return x
    if choice.dtype == torch.bool:
        return (x * choice).mul_(1 / (1 - dropout))
    scaled = x.contiguous() * (1 / (1 - dropout))
    scaled.view(-1).index_fill_(0, choice, 0)
    return scaled


class FusedLinear(lora.Linear):
    """PEFT's LoRA layer with the product above where it says the same; PEFT's own forward pass everywhere else."""

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """The layer's result, of the shape of `x` but for the last dimension."""
        name = self.sole_adapter()
        if name is None or arguments or options:
            stock: torch.Tensor = super().forward(x, *arguments, **options)
            return stock
        base: Any = self.get_base_layer()
        result: torch.Tensor = LoraProduct.apply(  # type: ignore[no-untyped-call]
            x.reshape(-1, x.shape[-1]).to(base.weight.dtype),
            base.weight,
            base.bias,
            self.lora_A[name].weight,
            self.lora_B[name].weight,
            self.scaling[name],
            self.dropout_of(name),
        )
        return result.view(*x.shape[:-1], result.shape[-1])

    def sole_adapter(self) -> str | None:
        """The adapter in use, when it is one plain LoRA that is neither off nor merged."""
        active: list[str] = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] in self.lora_variant:
            return None
        return active[0]

    def dropout_of(self, name: str) -> float:
        """Share of what goes into an adapter that is dropped now."""
        dropout: float = getattr(self.lora_dropout[name], "p", 0.0) if self.training else 0.0
        return dropout


def fuse_lora(model: nn.Module) -> int:
    """Let the LoRA layers of a PEFT model compute as one operation; returns how many were changed."""
    found = [module for module in model.modules() if type(module) is lora.Linear and _is_plain(module)]
    for module in found:
        module.__class__ = FusedLinear  # same weights, same names: only the forward pass is another
    return len(found)


def _is_plain(module: Any) -> bool:
    """Whether a layer is y = x W^T + b + LoRA with floating-point weights, and nothing else."""
    base = module.get_base_layer()
    return (
        type(base) is nn.Linear
        and base.weight.is_floating_point()
        and not base.weight.requires_grad
        and not module.fan_in_fan_out
        and not any(module.lora_bias.values())
        and not any(getattr(module, "use_dora", {}).values())
    )
