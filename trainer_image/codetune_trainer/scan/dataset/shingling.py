"""Hashes of texts' shingles, that is runs of five words: what is compared of texts is compared by these. Pure.

A word is what a language would take for one, so neither indentation nor brackets matter. What a backslash stands before
is none: a module that a notebook holds as JSON strings, or a bundle as a string of JavaScript, has the words of the
module all the same.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 5
PIECE_BYTES = 512 * 1024
"""Text that is worked on together, so that memory stays small however much there is."""
LONGEST_BYTES = 128 * 1024
"""Of one text among those that are hashed together."""

_ODD = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_ODD), -1, 2**64))
_WORD = np.zeros(256, np.bool_)
_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *range(128, 256)]] = True
_ESCAPE = ord("\\")

Hashes = npt.NDArray[np.uint64]


def hash_together(texts: Sequence[bytes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """The shingles of texts, text after text; and how many each has.

    Args:
        texts: Of `LONGEST_BYTES` at most, and so many that all but the last have less than `PIECE_BYTES`.
    """
    data = np.frombuffer(b"\n".join(texts) + b"\n", np.uint8)
    lengths = np.array([len(text) + 1 for text in texts], np.int64)
    words, starts = _hash_words(data)
    of_text = np.searchsorted(np.cumsum(lengths), starts, side="right")
    last = max(0, len(words) - SHINGLE_WORDS + 1)
    whole = of_text[:last] == of_text[SHINGLE_WORDS - 1 :] if last else np.zeros(0, np.bool_)
    return mix(_join_words(words)[whole]), np.bincount(of_text[:last][whole], minlength=len(texts))


def hash_by_pieces(text: bytes, overlap: int) -> Iterator[Hashes]:
    """The shingles of a text of any length in pieces, each of which begins with the last ones of that before it.

    Args:
        text: In UTF-8.
        overlap: How many shingles two pieces have in common.
    """
    words = np.zeros(0, np.uint64)
    at = 0
    while at < len(text):
        end = _find_end(text, at)
        more, _ = _hash_words(np.frombuffer(text[at:end], np.uint8))
        words = np.concatenate([words, more])
        yield mix(_join_words(words))
        words = words[max(0, len(words) - (overlap + SHINGLE_WORDS - 1)) :]
        at = end


def _find_end(text: bytes, at: int) -> int:
    """Where a piece ends: behind a line or a space, so that no word is cut, where there is one."""
    end = at + PIECE_BYTES
    if end >= len(text):
        return len(text)
    behind = max(text.rfind(b"\n", at, end), text.rfind(b" ", at, end)) + 1
    return behind if behind > at else end


def _join_words(words: Hashes) -> Hashes:
    last = max(0, len(words) - SHINGLE_WORDS + 1)
    hashes = np.zeros(last, np.uint64)
    for place in range(SHINGLE_WORDS):
        hashes += words[place : place + last] * powers()[place + 1]
    return hashes


def _hash_words(data: npt.NDArray[np.uint8]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hash and start of every word: a polynomial in its bytes, modulo 2^64, by differences of one running sum."""
    inside = np.zeros(len(data) + 2, np.bool_)
    inside[1:-1] = _WORD[data]
    inside[2:-1] &= data[:-1] != _ESCAPE
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    # In place, here and below: what a new array of this size costs is mostly that the kernel must clear it.
    sums = np.zeros(len(data) + 1, np.uint64)
    sums[1:] = data
    sums[1:] += np.uint64(1)
    sums[1:] *= powers()[: len(data)]
    np.cumsum(sums, out=sums)
    # Two words of the same bytes differ by a power of the base, according to where they stand: it is divided out.
    return mix((sums[ends] - sums[starts]) * _inverse_powers()[starts]), starts


def sort_once(hashes: Hashes) -> Hashes:
    """Hashes in order, each once: several times as fast as `numpy.unique`, which counts them in a table first."""
    hashes = np.sort(hashes)
    once: Hashes = hashes[np.diff(hashes, prepend=~hashes[:1]) != 0]
    return once


def mix(hashes: Hashes) -> Hashes:
    """Spread what differs in few bits over all of them, in place (the finalizer of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hashes ^= hashes >> np.uint64(33)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(33)
    return hashes


@cache
def powers() -> Hashes:
    """Powers of an odd number modulo 2^64, as many as a piece can have bytes."""
    return _powers_of(_ODD)


@cache
def _inverse_powers() -> Hashes:
    return _powers_of(_INVERSE)


def _powers_of(base: np.uint64) -> Hashes:
    steps = np.full(PIECE_BYTES + LONGEST_BYTES + 2, base, np.uint64)
    steps[0] = 1
    found: Hashes = np.cumprod(steps, dtype=np.uint64)
    return found
