"""Training examples for fill-in-the-middle, laid out as `codetune_api.infilling` says the family is served.

What the loss covers: every token of code, in prefix, suffix and middle alike, and the token that ends the middle, as
the families' own training did (arXiv:2207.14255). The sentinels and markers are read but never learned: the model knows
them, and one that it learned to write would end up in somebody's file. (None is ever new: nothing is added to a
tokenizer.)
"""

import random
from dataclasses import replace
from typing import Any

import torch
from codetune_api.infilling import Format, Origin, find_format

from codetune_trainer.train.data.cutting import Cut, choose_cut
from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.packing import IGNORED, Packed

SENTINELS = 3
OTHER_ORDER = 0.1
"""Share of the examples in the order that is not served, where the base knows both: what it knows is not unlearned."""


def find_fim_tokens(tokenizer: Any) -> Format | None:
    """The fill-in-the-middle format of a tokenizer; None when it has none."""
    return find_format(tokenizer.get_vocab(), tokenizer.eos_token_id)


def infill(
    text: str, encoder: Encoder, found: Format, chance: random.Random, room: int, origin: Origin | None = None
) -> list[int]:
    """Token ids of a text with a middle cut out and put last, then what ends a middle: at most `room` of them.

    Args:
        text: At most about `room` tokens.
        encoder: The tokenizer.
        found: The family's format.
        chance: Where the cut and the order come from.
        room: Most tokens, the end of the middle among them; more than `SENTINELS`.
        origin: Where the text is from, for families that were told; left out where there is no room for it.
    """
    cut = choose_cut(text, chance)
    other = found.family.knows_both and chance.random() < OTHER_ORDER
    if origin is not None:
        made = _lay_out(text, cut, encoder, found, origin, other=other, room=None)
        if len(made) <= room:
            return made
    return _lay_out(text, cut, encoder, found, None, other=other, room=room)


def _lay_out(
    text: str, cut: Cut, encoder: Encoder, found: Format, origin: Origin | None, *, other: bool, room: int | None
) -> list[int]:
    """One example. Cutting a text makes a few more tokens of it; what is more than `room` goes from the far ends of
    prefix and suffix, so that what stands next to the cursor stays."""
    before, inside, opening = found.head(origin, encoder.encode_one)
    prefix = encoder.encode_one(opening + text[: cut[0]])
    tail = [*encoder.encode_continuation(text[cut[0] : cut[1]]), found.end]
    suffix = list(encoder.encode_continuation(text[cut[1] :]))
    if room is not None:
        # A middle that does not fit has no end to learn.
        tail = tail[: room - SENTINELS]
        spare = room - SENTINELS - len(tail)
        suffix = suffix[: max(spare - len(prefix), spare // 2)]
        prefix = prefix[len(prefix) - min(len(prefix), spare - len(suffix)) :]
    return [*found.arrange(before, [*inside, *prefix], suffix, other=other), *tail]


def hide_sentinels(packed: Packed, found: Format | None) -> Packed:
    """The same sequences, with nothing to learn where a sentinel or marker comes next."""
    if found is None:
        return packed
    hidden = torch.isin(packed.labels, torch.tensor(sorted(found.sentinels)))
    return replace(packed, labels=packed.labels.masked_fill(hidden, IGNORED))
