"""Fill-in-the-middle: turns a text into prefix, suffix and middle with the model's own tokens. Pure.

Formats as the families publish them; PSM puts the prefix first, SPM the suffix (arXiv:2207.14255). The cut is made
between characters, as an editor's cursor is, and half of the examples are SPM, in the joint form of that paper's §3.1:
prefix token, suffix token, suffix, middle token, prefix, middle.
"""

import random
from dataclasses import dataclass
from typing import Any

from codetune_trainer.train.encoding import Encoder

# (prefix, suffix, middle) tokens by family; the first triple that a tokenizer knows as single tokens is used.
FAMILIES = {
    "StarCoder, StarCoder2, Granite-Code, StableCode": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    "Qwen2.5-Coder, Qwen3-Coder, CodeGemma": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "CodeLlama": ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    "DeepSeek-Coder": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
}
SENTINELS = 3


@dataclass(frozen=True)
class FimTokens:
    """Token ids of a family's sentinels."""

    prefix: int
    suffix: int
    middle: int


def find_fim_tokens(tokenizer: Any) -> FimTokens | None:
    """The sentinels of a tokenizer; None when it has none."""
    vocabulary = tokenizer.get_vocab()
    for family in FAMILIES.values():
        if all(token in vocabulary for token in family):
            return FimTokens(*(vocabulary[token] for token in family))
    return None


def infill(text: str, encoder: Encoder, tokens: FimTokens, chance: random.Random, room: int) -> list[int]:
    """Token ids of a text with a random middle cut out and put last: at most `room` of them.

    Cutting a text makes a few more tokens of it; what is too much goes from the far ends of prefix and suffix.
    """
    first, second = sorted(chance.sample(range(len(text) + 1), 2)) if len(text) > 1 else (0, len(text))
    prefix, middle, suffix = encoder.encode([text[:first], text[first:second], text[second:]])
    middle = middle[: room - SENTINELS]
    spare = room - SENTINELS - len(middle)
    suffix = suffix[: max(spare - len(prefix), spare // 2)]
    prefix = prefix[len(prefix) - min(len(prefix), spare - len(suffix)) :]
    if chance.random() < 0.5:
        return [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix, *middle]
    return [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle, *middle]
