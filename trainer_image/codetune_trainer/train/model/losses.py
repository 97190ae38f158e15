"""Next-token cross-entropy without ever holding the logits of a whole batch.

With a frozen output head, or one with an adapter of few columns, all gradients can be taken chunk by chunk in the
forward pass, so nothing is recomputed and at most `CHUNK` rows of logits are held.
"""

from typing import Any

import torch
from torch.nn import functional

from codetune_trainer.train.data.packing import IGNORED, Packed
from codetune_trainer.train.kernels import attention
from codetune_trainer.train.kernels.lora import FusedLinear, choose_dropped, drop
from codetune_trainer.train.model.heads import has_plain_logits

CHUNK = 256
"""Rows of logits that are held at once: few enough for the cache of a CPU, enough for a fast product."""
_TINY = 1e-30


class FrozenHeadLoss(torch.autograd.Function):
    """Sum of cross-entropies of `hidden @ weight.T + bias` against `labels`; gradient with respect to `hidden` only.

    hidden: [n, d]; weight: [v, d]; bias: [v] or None; labels: [n], none of them IGNORED. The gradient of a row is
    (softmax(logits) - onehot(label)) @ weight.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, hidden.shape[0], CHUNK):
            rows, wanted = hidden[start : start + CHUNK], labels[start : start + CHUNK, None]
            logits = functional.linear(rows.to(weight.dtype), weight, bias).float()
            chances = torch.softmax(logits, dim=1)
            total += _sum_of_surprises(logits, chances, wanted)
            if gradient is None:  # only measuring
                continue
            chances.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            gradient[start : start + CHUNK] = (chances.to(weight.dtype) @ weight).to(hidden.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None, None


class AdaptedHeadLoss(torch.autograd.Function):
    """The same with a LoRA on the head: logits = hidden @ weight.T + bias + s · drop(hidden) @ down.T @ up.T.

    down: [r, d]; up: [v, r]; gradients with respect to `hidden`, `down` and `up`. With g = softmax(logits) -
    onehot(label) and e = s · g @ up: of hidden g @ weight + drop(e @ down), of down e.T @ drop(hidden), and of up
    s · g.T @ (drop(hidden) @ down.T).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
        dropout: float,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        takes_gradient = any(ctx.needs_input_grad)
        x, small, wide = hidden.to(weight.dtype), down.to(weight.dtype), up.to(weight.dtype)
        choice = choose_dropped(x, dropout) if dropout else None
        dropped = drop(x, choice, dropout)
        narrow = dropped @ small.t()
        of_hidden, of_narrow, of_up = torch.empty_like(x), torch.empty_like(narrow), torch.zeros_like(up)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            wanted = labels[part, None]
            logits = functional.linear(x[part], weight, bias).addmm_(narrow[part], wide.t(), alpha=scaling).float()
            chances = torch.softmax(logits, dim=1)
            total += _sum_of_surprises(logits, chances, wanted)
            if not takes_gradient:  # only measuring
                continue
            chances.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=torch.float32))
            given = chances.to(weight.dtype)
            of_hidden[part] = given @ weight
            of_narrow[part] = (given @ wide) * scaling
            of_up += (given.t() @ narrow[part]) * scaling
        if takes_gradient:
            of_hidden += drop(of_narrow @ small, choice, dropout)
            of_down = (dropped.t() @ of_narrow).t().to(down.dtype)
            ctx.save_for_backward(of_hidden.to(hidden.dtype), of_down, of_up)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_hidden, of_down, of_up = (found * upstream[0].to(found.dtype) for found in ctx.saved_tensors)
        return of_hidden, None, None, of_down, of_up, None, None, None


def _sum_of_surprises(logits: torch.Tensor, chances: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Sum of -log(chance) of the wanted tokens. Out of the probabilities, which are needed anyway: one pass over the
    vocabulary less; but out of the logits for a row whose probability is so small that float32 no longer holds it."""
    found = chances.gather(1, wanted)
    surprises = -found.log()
    tiny = (found < _TINY)[:, 0]
    if tiny.any():
        rest = logits[tiny]
        surprises[tiny] = rest.logsumexp(dim=1, keepdim=True) - rest.gather(1, wanted[tiny])
    return surprises.sum()


def _build_mask(causal: Any, batch: Packed) -> torch.Tensor:
    """Shape [rows, 1, length, length] where documents share a sequence; else the model's own mask knows more."""
    if causal.config._attn_implementation == attention.NAME:
        return attention.tell_spans(batch.mask(), batch.spans())
    if not batch.is_shared:
        return (batch.segments >= 0).long()
    if causal.config._attn_implementation == "eager":  # adds it to the scores
        mask = batch.mask()
        return torch.zeros(mask.shape, dtype=causal.dtype, device=mask.device).masked_fill_(
            ~mask, torch.finfo(causal.dtype).min
        )
    return batch.mask()


def _build_inputs(causal: Any, batch: Packed) -> dict[str, Any]:
    return {
        "input_ids": batch.tokens,
        "position_ids": batch.positions,
        "attention_mask": _build_mask(causal, batch),
        "use_cache": False,
    }


@torch.no_grad()
def token_losses(causal: Any, batch: Packed) -> torch.Tensor:
    """Cross-entropy of each target of the batch in nats, row by row; `causal` has no adapter. Shape [targets]."""
    inputs, wanted = _build_inputs(causal, batch), batch.labels != IGNORED
    labels = batch.labels[wanted]
    if not has_plain_logits(causal):
        return functional.cross_entropy(causal(**inputs).logits[wanted].float(), labels, reduction="none")
    hidden, head = causal.base_model(**inputs).last_hidden_state[wanted], causal.get_output_embeddings()
    found = torch.empty(len(labels), device=hidden.device)
    for start in range(0, len(labels), CHUNK):
        rows, next_tokens = hidden[start : start + CHUNK], labels[start : start + CHUNK]
        logits = functional.linear(rows.to(head.weight.dtype), head.weight, getattr(head, "bias", None)).float()
        found[start : start + CHUNK] = functional.cross_entropy(logits, next_tokens, reduction="none")
    return found


def sum_loss(model: Any, batch: Packed) -> torch.Tensor:
    """Sum over all targets of the batch, in nats; `model` is a PEFT model. Shape []."""
    causal = model.get_base_model()
    inputs = _build_inputs(causal, batch)
    if not has_plain_logits(causal):  # its own forward pass knows better
        logits = causal(**inputs).logits.float()
        return functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
    hidden = causal.base_model(**inputs).last_hidden_state
    wanted = batch.labels != IGNORED
    return _sum_by_head(causal.get_output_embeddings(), hidden[wanted], batch.labels[wanted])


def _sum_by_head(head: Any, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """hidden: [n, d]; labels: [n], none of them IGNORED."""
    bias = getattr(head, "bias", None)
    name = head.sole_adapter() if isinstance(head, FusedLinear) else None
    loss: torch.Tensor
    if name is None:
        loss = FrozenHeadLoss.apply(hidden, head.weight, bias, labels)  # type: ignore[no-untyped-call]
    else:
        down, up, dropout = head.lora_A[name].weight, head.lora_B[name].weight, head.dropout_of(name)
        if not torch.is_grad_enabled():  # which the function itself can't tell
            down, up = down.detach(), up.detach()
        loss = AdaptedHeadLoss.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, bias, down, up, head.scaling[name], dropout, labels
        )
    return loss
