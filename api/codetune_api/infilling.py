"""Fill-in-the-middle as each model family publishes it: one table for training and for serving. Pure.

A family is found from the special tokens of a tokenizer, never from a model's name. `Format` lays out token ids: what a
server sends for a text before and a text after the cursor is what training puts before the middle.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text, nothing added, and no text read as a special token."""
Order = Literal["PSM", "SPM"]
"""Prefix, suffix, middle; or suffix, prefix, middle (arXiv:2207.14255)."""

REPOSITORY, PATH = "{repository}", "{path}"


@dataclass(frozen=True)
class Origin:
    """Where a file is from."""

    repository: str
    path: str
    """In the repository, with `/` between its parts."""


def _is_marker(part: str) -> bool:
    return REPOSITORY not in part and PATH not in part and not part.endswith("\n")


def _fill(part: str, origin: Origin) -> str:
    return part.replace(REPOSITORY, origin.repository).replace(PATH, origin.path)


@dataclass(frozen=True)
class Family:
    """What a model family publishes about its prompts, spelled as its tokenizer spells it."""

    name: str
    prefix: str
    suffix: str
    middle: str | None
    """None: the middle follows the prefix at once."""
    order: Order = "PSM"
    """How the family is served."""
    knows_both: bool = False
    """Whether it was trained in both orders."""
    end: str | None = None
    """What ends a middle; None: the tokenizer's end of text."""
    stops: tuple[str, ...] = ()
    """More tokens that a middle never holds."""
    before: tuple[str, ...] = ()
    """Markers and texts that say where a file is from, in front of everything else."""
    inside: tuple[str, ...] = ()
    """The same, at the beginning of the prefix; its last text and the prefix are one text."""

    @property
    def markers(self) -> tuple[str, ...]:
        """Special tokens of `before` and `inside`."""
        return tuple(part for part in (*self.before, *self.inside) if _is_marker(part))

    @property
    def sentinels(self) -> tuple[str, ...]:
        """Special tokens around prefix, suffix and middle."""
        return tuple(token for token in (self.prefix, self.suffix, self.middle) if token is not None)

    @property
    def layout(self) -> str:
        """Its prompt as a text has it, P for the prefix and S for the suffix."""
        prefix, suffix = f"{spell(self.prefix)}P", f"{spell(self.suffix)}S"
        return f"{suffix}{prefix}" if self.middle is None else f"{prefix}{suffix}{spell(self.middle)}"

    def has_laid_out(self, text: str) -> bool:
        """Whether a text is a prompt of this format already, behind which the middle belongs."""
        if self.middle is None:
            return text.startswith(spell(self.suffix)) and spell(self.prefix) in text
        return text.endswith(spell(self.middle)) and spell(self.prefix) in text and spell(self.suffix) in text


def spell(token: str) -> str:
    """A token as a text has it: the space in front that SentencePiece writes is the text's own."""
    return token.lstrip("▁")


_STARCODER = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
_BARRED = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")

FAMILIES = (
    # The path is part of what is cut: the model card and arXiv:2402.19173, section 5.
    Family(
        "StarCoder2", *_STARCODER, knows_both=True,
        stops=("<file_sep>", "<repo_name>"), before=("<repo_name>", REPOSITORY, "<file_sep>"), inside=(f"{PATH}\n",),
    ),
    # arXiv:2305.06161 and arXiv:2405.04324: the header is part of the text that is cut.
    Family(
        "StarCoder, Granite-Code, Refact, StableCode", *_STARCODER, knows_both=True,
        stops=("<filename>", "<reponame>"), inside=("<reponame>", REPOSITORY, "<filename>", f"{PATH}\n"),
    ),
    Family("StarCoder's tokens", *_STARCODER, knows_both=True),
    # arXiv:2409.12186, section 3.2: file-level and repository-level examples.
    Family(
        "Qwen2.5-Coder, Qwen3-Coder", *_BARRED, end="<|endoftext|>",
        stops=("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
        before=("<|repo_name|>", f"{REPOSITORY}\n", "<|file_sep|>", f"{PATH}\n"),
    ),
    # arXiv:2406.11409, figure 2: the path stands before the prefix, the separator ends a file.
    Family("CodeGemma", *_BARRED, knows_both=True, end="<|file_separator|>", before=(f"{PATH}\n",)),
    Family("Granite's newer tokens", *_BARRED, knows_both=True),
    # arXiv:2308.12950, section 2.3, and the reference implementation of its prompts.
    Family("CodeLlama", "▁<PRE>", "▁<SUF>", "▁<MID>", knows_both=True, end="▁<EOT>"),
    # arXiv:2401.14196, sections 2.1 and 3.1; files of a repository begin with a comment that names them.
    Family(
        "DeepSeek-Coder", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>",
        end="<｜end▁of▁sentence｜>", inside=(f"#{PATH}\n",),
    ),
    # Mistral's own request encoder: suffix first, and nothing between prefix and middle.
    Family("Codestral", "[PREFIX]", "[SUFFIX]", None, order="SPM", stops=("[MIDDLE]",)),
)  # fmt: skip
# What tells a family from another one with the same sentinels; the first that matches is taken.
_SIGNATURES = {"CodeGemma": ("<|file_separator|>",)}

RESERVED = frozenset(
    token
    for family in FAMILIES
    for token in (*family.sentinels, *family.markers, *family.stops, *_SIGNATURES.get(family.name, ()), family.end)
    if token is not None
)
"""Tokens that a text may spell and must not become."""


@dataclass(frozen=True)
class Format:
    """A family's format in the token ids of one tokenizer."""

    family: Family
    prefix: int
    suffix: int
    middle: int | None
    end: int
    """Ends a middle."""
    stops: tuple[int, ...]
    """What ends a generation: `end`, and every token that a middle never holds."""
    markers: Mapping[str, int]

    @property
    def sentinels(self) -> frozenset[int]:
        """Tokens that structure an example and are no part of any text; `end` is none of them."""
        found = {self.prefix, self.suffix, self.middle, *self.markers.values()}
        return frozenset(token for token in found if token is not None and token != self.end)

    def head(self, origin: Origin | None, encode: Encode) -> tuple[list[int], list[int], str]:
        """(tokens before everything, tokens at the beginning of the prefix, text to put before the prefix's own)."""
        if origin is None:
            return [], [], ""
        inside = [_fill(part, origin) for part in self.family.inside]
        text = inside.pop() if inside and not _is_marker(inside[-1]) else ""
        return self._encode(self.family.before, origin, encode), self._encode_filled(inside, encode), text

    def document(self, text: str, origin: Origin | None, encode: Encode) -> list[int]:
        """A whole file with what says where it is from."""
        before, inside, opening = self.head(origin, encode)
        return [*before, *inside, *encode(opening + text)]

    def prompt(self, prefix: str, suffix: str, encode: Encode, origin: Origin | None = None) -> list[int]:
        """What stands before the middle when the family is served; the tokenizer's own beginning of text comes first.

        Args:
            prefix: Text before the cursor.
            suffix: Text after it.
            encode: The tokenizer.
            origin: Where the file is from, where that is known.
        """
        before, inside, opening = self.head(origin, encode)
        after = build_continuation(encode)(suffix)
        return self.arrange(before, [*inside, *encode(opening + prefix)], after)

    def arrange(
        self, before: Sequence[int], prefix: Sequence[int], suffix: Sequence[int], *, other: bool = False
    ) -> list[int]:
        """Everything before the middle, in the order in which the family is served, or in the other one."""
        if self.middle is None:
            if other:
                raise ValueError(f"{self.family.name} has one order only")
            return [*before, self.suffix, *suffix, self.prefix, *prefix]
        if other:
            # The joint form: prefix token, suffix token, suffix, middle token, prefix (arXiv:2207.14255, section 3.1).
            return [*before, self.prefix, self.suffix, *suffix, self.middle, *prefix]
        return [*before, self.prefix, *prefix, self.suffix, *suffix, self.middle]

    def _encode(self, parts: Sequence[str], origin: Origin, encode: Encode) -> list[int]:
        return self._encode_filled([_fill(part, origin) for part in parts], encode)

    def _encode_filled(self, parts: Sequence[str], encode: Encode) -> list[int]:
        pieces = [[self.markers[part]] if part in self.markers else list(encode(part)) for part in parts]
        return [token for piece in pieces for token in piece]


def find_format(vocabulary: Mapping[str, int], end_of_text: int) -> Format | None:
    """The format of a tokenizer; None when it has no tokens for it.

    Args:
        vocabulary: Token → id, special tokens among them.
        end_of_text: The tokenizer's own end of text.
    """
    for family in FAMILIES:
        needed = (*family.sentinels, *family.markers, *_SIGNATURES.get(family.name, ()))
        if all(token in vocabulary for token in needed):
            break
    else:
        return None
    end = vocabulary.get(family.end, end_of_text) if family.end is not None else end_of_text
    never = [vocabulary[token] for token in (*family.sentinels, *family.stops) if token in vocabulary]
    return Format(
        family=family,
        prefix=vocabulary[family.prefix],
        suffix=vocabulary[family.suffix],
        middle=None if family.middle is None else vocabulary[family.middle],
        end=end,
        stops=tuple(dict.fromkeys([end, end_of_text, *never])),
        markers={token: vocabulary[token] for token in family.markers},
    )


def build_literal(encode: Encode, vocabulary: Mapping[str, int]) -> Encode:
    """An encoder for which no text spells a token of a format.

    Several tokenizers do not call these tokens special, so that leaving special tokens alone does not leave them alone.
    """
    reserved = sorted((token for token in RESERVED if token in vocabulary), key=len, reverse=True)
    if not reserved:
        return encode
    pattern = re.compile("|".join(re.escape(token) for token in reserved))

    def encode_literal(text: str) -> Sequence[int]:
        # Cut behind the first letter of each: neither half is a token.
        cuts = [0, *(match.start() + 1 for match in pattern.finditer(text)), len(text)]
        pieces = [text[start:stop] for start, stop in itertools.pairwise(cuts)]
        if len(pieces) == 1:
            return encode(text)
        proceed = build_continuation(encode)
        return [*encode(pieces[0]), *(token for piece in pieces[1:] for token in proceed(piece))]

    return encode_literal


def build_continuation(encode: Encode) -> Encode:
    """An encoder for text that goes on where another text stopped.

    Tokenizers of the SentencePiece kind put a space before every text, which belongs to the first one alone. A
    character that merges with nothing takes that space and is cut away again.
    """
    if list(encode("\na"))[len(encode("\n")) :] == list(encode("a")):
        return encode

    def encode_continuation(text: str) -> Sequence[int]:
        if not text:
            return []
        for guard in ("\n", "☺"):
            alone, whole = list(encode(guard)), list(encode(guard + text))
            if whole[: len(alone)] == alone:
                return whole[len(alone) :]
        return encode(text)

    return encode_continuation
