"""Text to tokens and back, as training needs it: no text can pose as one of the model's special tokens."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from codetune_api.infilling import RESERVED, Encode, build_continuation, build_literal


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with what stands at the borders of documents."""

    tokenizer: Any
    begin: tuple[int, ...]
    """What the tokenizer itself puts before any text, e.g. `<s>`: servers do it too, so it is trained with."""
    end: int
    """Ends a document."""
    padding: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, nothing added. Source code that spells a special token stays plain text."""
        if not texts:
            return []
        ids = self._encode_as_it_comes(list(texts))
        if self._reserved:
            for index, text in enumerate(texts):
                if any(token in text for token in self._reserved):
                    ids[index] = list(self._encode_literal(text))
        return ids

    def _encode_as_it_comes(self, texts: list[str]) -> list[list[int]]:
        found = self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)
        ids: list[list[int]] = found["input_ids"]
        return ids

    @cached_property
    def _reserved(self) -> list[str]:
        """Tokens of fill-in-the-middle formats that the tokenizer knows, special or not."""
        return sorted(RESERVED & self.tokenizer.get_vocab().keys())

    @cached_property
    def _encode_literal(self) -> Encode:
        return build_literal(lambda text: self._encode_as_it_comes([text])[0], self.tokenizer.get_vocab())

    def encode_one(self, text: str) -> list[int]:
        """Token ids of one text, as `encode` gives them."""
        return self.encode([text])[0]

    @cached_property
    def encode_continuation(self) -> Encode:
        """Token ids of a text that goes on where another one stopped: without the space that some tokenizers add."""
        return build_continuation(self.encode_one)

    def cut(self, text: str, room: int) -> list[str]:
        """The text in pieces of at most `room` tokens."""
        found = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )["offset_mapping"]  # fmt: skip
        # Several tokens can share a character, which then stays whole in the piece that begins with it.
        starts = [0, *(found[at][0] for at in range(room, len(found), room)), len(text)]
        return [text[start:stop] for start, stop in itertools.pairwise(starts) if stop > start]

    def decode(self, tokens: Any) -> str:
        """The text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def build_encoder(tokenizer: Any) -> Encoder:
    """What a tokenizer says about the borders of documents."""
    end = tokenizer.eos_token_id
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    leading = tokenizer("a")["input_ids"][:1]
    begin = tuple(leading) if leading == [tokenizer.bos_token_id] else ()
    return Encoder(tokenizer, begin, end, padding)
