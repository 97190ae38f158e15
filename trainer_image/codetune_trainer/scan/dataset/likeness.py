"""How alike texts are: MinHash over runs of five words, in rensa (Rust); which files to compare, by bands of it.

The share of equal entries in two signatures estimates the Jaccard similarity of the texts' shingles (Broder, "On the
resemblance and containment of documents", 1997). Cutting a signature into bands of rows makes texts of a similarity s
meet in at least one band with probability 1 - (1 - s^rows)^bands (Leskovec et al., "Mining of Massive Datasets", 3.4):
with 16 bands of 8 rows 99.4 % at 0.85, and 11 % at 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

PERMUTATIONS = 128
BANDS = 16
SHINGLE_WORDS = 5
LEAST_SHINGLES = 24
"""Shorter texts say too little: two of them are alike by chance."""
LOOK_BYTES = 128 * 1024
"""Of a longer text, only its beginning is compared."""
ALIKE = 0.85
"""Share of equal entries from which two files count as near duplicates."""

_SEED = 20260101
_PIECE_BYTES = 512 * 1024
"""Texts that are worked on together, so that memory stays small however many there are."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_ODD), -1, 2**64))
_WORD = np.zeros(256, np.bool_)
_WORD[[*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", *range(128, 256)]] = True

Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint16]
"""Shape [texts, PERMUTATIONS]: the low 16 bits of each minimum, which is all that comparing takes."""
Bands = npt.NDArray[np.uint32]
"""Shape [texts, BANDS]."""


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of texts to compare them."""

    signatures: Signatures
    bands: Bands
    comparable: npt.NDArray[np.bool_]
    """Shape [texts]: whether a text is long enough."""


def take_fingerprints(texts: Sequence[bytes]) -> Fingerprints:
    """The fingerprints of texts, the same on every machine and in whatever company a text is."""
    parts = [_take(piece) for piece in _cut(texts)]
    empty = Fingerprints(np.zeros((0, PERMUTATIONS), np.uint16), np.zeros((0, BANDS), np.uint32), np.zeros(0, np.bool_))
    parts = parts or [empty]
    return Fingerprints(
        np.concatenate([part.signatures for part in parts]),
        np.concatenate([part.bands for part in parts]),
        np.concatenate([part.comparable for part in parts]),
    )


def likenesses(one: Signatures, others: Signatures) -> npt.NDArray[np.float64]:
    """Estimated Jaccard similarity of one text to each of others.

    Args:
        one: Its signature, of shape [PERMUTATIONS].
        others: Theirs, of shape [texts, PERMUTATIONS].

    Returns:
        Shape [texts].
    """
    return np.asarray(np.count_nonzero(one == others, axis=1), np.float64) / PERMUTATIONS


def _cut(texts: Sequence[bytes]) -> list[list[bytes]]:
    pieces: list[list[bytes]] = []
    held = _PIECE_BYTES
    for text in texts:
        if held >= _PIECE_BYTES:
            pieces.append([])
            held = 0
        pieces[-1].append(text[:LOOK_BYTES])
        held += len(pieces[-1][-1]) + 1
    return pieces


def _take(texts: list[bytes]) -> Fingerprints:
    shingles, counts = _hash_shingles(texts)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    matrix: Any = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets.tolist(), PERMUTATIONS, _SEED)
    minima = np.array(matrix.to_rows(), np.uint64).reshape(len(texts), PERMUTATIONS)
    rows = PERMUTATIONS // BANDS
    mixed = (minima.reshape(len(texts), BANDS, rows) * _powers()[1 : rows + 1]).sum(axis=2, dtype=np.uint64)
    return Fingerprints(
        (minima & np.uint64(0xFFFF)).astype(np.uint16),
        (_mix(mixed) >> np.uint64(32)).astype(np.uint32),
        counts >= LEAST_SHINGLES,
    )


def _hash_shingles(texts: list[bytes]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """A hash of every run of words, text after text; and how many each text has."""
    data = np.frombuffer(b"\n".join(texts) + b"\n", np.uint8)
    lengths = np.array([len(text) + 1 for text in texts], np.int64)
    words, starts = _hash_words(data)
    of_text = np.searchsorted(np.cumsum(lengths), starts, side="right")
    last = max(0, len(words) - SHINGLE_WORDS + 1)
    hashes = np.zeros(last, np.uint64)
    for place in range(SHINGLE_WORDS):
        hashes += words[place : place + last] * _powers()[place + 1]
    whole = of_text[:last] == of_text[SHINGLE_WORDS - 1 :] if last else np.zeros(0, np.bool_)
    return _mix(hashes[whole]), np.bincount(of_text[:last][whole], minlength=len(texts))


def _hash_words(data: npt.NDArray[np.uint8]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hash and start of every word: a polynomial in its bytes, modulo 2^64, by differences of one running sum."""
    inside = _WORD[data].view(np.int8)
    edges = np.flatnonzero(np.diff(inside, prepend=np.int8(0), append=np.int8(0)))
    starts, ends = edges[::2], edges[1::2]
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * _powers()[: len(data)], out=sums[1:])
    # Two words of the same bytes differ by a power of the base, according to where they stand: it is divided out.
    return _mix((sums[ends] - sums[starts]) * _inverse_powers()[starts]), starts


def _mix(hashes: Hashes) -> Hashes:
    """Spread what differs in few bits over all of them (the finalizer of MurmurHash3)."""
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: Hashes = hashes ^ (hashes >> np.uint64(33))
    return mixed


@cache
def _powers() -> Hashes:
    return _powers_of(_ODD)


@cache
def _inverse_powers() -> Hashes:
    return _powers_of(_INVERSE)


def _powers_of(base: np.uint64) -> Hashes:
    """Powers of an odd number modulo 2^64, as many as a piece can have bytes."""
    steps = np.full(_PIECE_BYTES + LOOK_BYTES + 2, base, np.uint64)
    steps[0] = 1
    powers: Hashes = np.cumprod(steps, dtype=np.uint64)
    return powers


def map_signatures(path: Path) -> Signatures:
    """A file of signatures one after the other, of shape [signatures, PERMUTATIONS]: read where it is looked at."""
    if not path.stat().st_size:
        return np.zeros((0, PERMUTATIONS), np.uint16)
    return np.memmap(path, np.uint16, "r").reshape(-1, PERMUTATIONS)
