"""Fill-in-the-middle: turns a document into prefix, suffix and middle with the model's own tokens.

Formats as the families publish them; PSM puts the prefix first, SPM the suffix (arXiv:2207.14255). The cut is made
between characters, as an editor's cursor is, and half of the examples are SPM, in the joint form of that paper's §3.1:
prefix token, suffix token, suffix, middle token, prefix, middle.
"""

import random
from dataclasses import dataclass
from typing import Any

# (prefix, suffix, middle) tokens by family; the first triple that a tokenizer knows as single tokens is used.
FAMILIES = {
    "StarCoder, StarCoder2, Granite-Code, StableCode": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    "Qwen2.5-Coder, Qwen3-Coder, CodeGemma": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "CodeLlama": ("▁<PRE>", "▁<SUF>", "▁<MID>"),
    "DeepSeek-Coder": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
}


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


def infill(text: str, tokenizer: Any, tokens: FimTokens, chance: random.Random) -> list[int]:
    """Token ids of a document with a random middle cut out and put last."""
    first, second = sorted(chance.sample(range(len(text) + 1), 2)) if len(text) > 1 else (0, len(text))
    prefix, middle, suffix = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (text[:first], text[first:second], text[second:])
    )
    if chance.random() < 0.5:
        return [tokens.prefix, tokens.suffix, *suffix, tokens.middle, *prefix, *middle]
    return [tokens.prefix, *prefix, tokens.suffix, *suffix, tokens.middle, *middle]
