"""Causal attention inside documents, for a CPU: plain matrix products, block by block.

Beside the stock one it does no work between documents that share a sequence, nor above the diagonal but in its own
blocks; and query heads that share a key-value head become rows of one product instead of copies of keys and values. The
backward pass uses the probabilities of short documents again, and computes those of long ones anew.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "codetune"
"""Of this implementation, among those of transformers."""
BLOCK = 128
"""Queries in a block: large enough for fast products, small enough that its scores stay in the cache."""
KEPT = 1024
"""Longest document whose probabilities are kept: for a longer one they would be most of what a step keeps."""
Span = tuple[int, int, int]
"""(row of the batch, first position, position after the last) of a document."""
_SPANS = "codetune_spans"
# What transformers passes to every attention without a meaning for its result.
_HARMLESS = frozenset({"position_ids", "use_cache", "output_attentions", "output_hidden_states", "cache_position"})


class DocumentAttention(torch.autograd.Function):
    """query: [b, h, n, d]; key: [b, k, n, d]; value: [b, k, n, e], h a multiple of k; returns [b, n, h, e].

    Positions outside of all spans get zeros. With P = softmax(s · Q K^T): dV = P^T dO, dS = P ∘ (dP - rowsum(P ∘ dP))
    where dP = dO V^T, dQ = s · dS K, dK = s · dS^T Q (as in arXiv:2205.14135, appendix B).
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Sequence[Span], scale: float
    ) -> torch.Tensor:
        rows, heads, length, _ = query.shape
        result = query.new_zeros(rows, length, heads, value.shape[-1])
        kept: list[torch.Tensor | None] = []
        for span in spans:
            keys, values = _cut(key, span), _cut(value, span)
            keeping = any(ctx.needs_input_grad) and span[2] - span[1] <= KEPT
            for start, stop in _blocks(span):
                wanted = _cut_query(query, span, start, stop, keys.shape[0], scale)
                chances = _probabilities(wanted, keys[:, :stop], stop - start)
                _place(result, span, start, torch.bmm(chances, values[:, :stop]), stop - start)
                kept.append(chances if keeping else None)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.spans, ctx.scale = spans, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        # [b, n, heads, d]: as the projections before them want it.
        of_query, of_key, of_value = (torch.zeros_like(x.transpose(1, 2).contiguous()) for x in (query, key, value))
        outer = upstream[0].transpose(1, 2)
        memory = iter(kept)
        for span in ctx.spans:
            keys, values = _cut(key, span), _cut(value, span)
            of_keys, of_values = torch.zeros_like(keys), torch.zeros_like(values)
            for start, stop in _blocks(span):
                wanted = _cut_query(query, span, start, stop, keys.shape[0], ctx.scale)
                incoming = _cut_query(outer, span, start, stop, keys.shape[0])
                chances = next(memory)
                if chances is None:
                    chances = _probabilities(wanted, keys[:, :stop], stop - start)
                of_values[:, :stop].baddbmm_(chances.transpose(1, 2), incoming)
                of_chances = torch.bmm(incoming, values[:, :stop].transpose(1, 2))
                of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
                of_keys[:, :stop].baddbmm_(of_scores.transpose(1, 2), wanted)
                found = torch.bmm(of_scores, keys[:, :stop]).mul_(ctx.scale)
                _place(of_query, span, start, found, stop - start)
            row, first, last = span
            of_key[row, first:last] = of_keys.transpose(0, 1)
            of_value[row, first:last] = of_values.transpose(0, 1)
        return of_query.transpose(1, 2), of_key.transpose(1, 2), of_value.transpose(1, 2), None, None


def _blocks(span: Span) -> Iterator[tuple[int, int]]:
    """Blocks of queries, counted from the document's begin."""
    length = span[2] - span[1]
    return ((start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


def _cut(source: torch.Tensor, span: Span) -> torch.Tensor:
    """Keys or values of one document: [k, m, d]."""
    row, first, last = span
    return source[row, :, first:last].contiguous()


def _cut_query(
    source: torch.Tensor, span: Span, start: int, stop: int, shared: int, scale: float | None = None
) -> torch.Tensor:
    """A block of queries as rows beside the key-value head that they share, scaled: [k, h / k · m, d]."""
    row, first, _ = span
    found = source[row, :, first + start : first + stop]
    return (found if scale is None else found * scale).reshape(shared, -1, found.shape[-1])


def _place(target: torch.Tensor, span: Span, start: int, block: torch.Tensor, length: int) -> None:
    """Write a block of `_cut_query`'s shape to its place in [b, n, h, d]."""
    row, first, _ = span
    heads = block.view(-1, length, block.shape[-1])
    target[row, first + start : first + start + length] = heads.transpose(0, 1)


def _probabilities(wanted: torch.Tensor, keys: torch.Tensor, length: int) -> torch.Tensor:
    """Softmax of the scores of a block's `length` queries, the last of which stand beside the last keys."""
    scores = torch.bmm(wanted, keys.transpose(1, 2))
    # [k, h / k, m, m]: only among the block's own positions can a key be later than a query.
    corner = scores.view(scores.shape[0], -1, length, scores.shape[-1])[..., scores.shape[-1] - length :]
    corner.add_(_forbid_later(length, scores.dtype))
    return torch.softmax(scores, -1)


@functools.cache
def _forbid_later(length: int, dtype: torch.dtype) -> torch.Tensor:
    """Zero where a query (row) may look at a key (column), minus infinity above: adding is faster than filling."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls. Only a mask that carries its documents takes the blocks; everything else is stock."""
    spans = getattr(attention_mask, _SPANS, None)
    unknown = any(value is not None for name, value in options.items() if name not in _HARMLESS)
    if spans is None or unknown or dropout or (sliding_window or key.shape[2]) < key.shape[2]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, sliding_window=sliding_window, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    result: torch.Tensor = DocumentAttention.apply(query, key, value, spans, scale)  # type: ignore[no-untyped-call]
    return result, None


def tell_spans(mask: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """The same mask, which knows its documents from now on. A mask that a model derives from it does not."""
    setattr(mask, _SPANS, spans)
    return mask


def register() -> None:
    """Make the implementation known to transformers."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
