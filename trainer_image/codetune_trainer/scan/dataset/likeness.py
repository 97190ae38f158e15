"""How alike texts are: MinHash over runs of five words, in rensa (Rust); which files to compare, by bands of it.

The share of equal entries in two signatures estimates the Jaccard similarity of the texts' shingles (Broder, "On the
resemblance and containment of documents", 1997). Cutting a signature into bands of rows makes texts of a similarity s
meet in at least one band with probability 1 - (1 - s^rows)^bands (Leskovec et al., "Mining of Massive Datasets", 3.4):
with 16 bands of 8 rows 99.4 % at 0.85, and 11 % at 0.5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from codetune_trainer.scan.dataset.shingling import LONGEST_BYTES, PIECE_BYTES, Hashes, hash_together, mix, powers
from codetune_trainer.scan.dataset.winnowing import (
    Keyed,
    Prints,
    gather_prints,
    key_prints,
    pick_prints,
    pick_prints_of_long,
)

PERMUTATIONS = 128
BANDS = 16
LEAST_SHINGLES = 24
"""Shorter texts say too little: two of them are alike by chance."""
LOOK_BYTES = LONGEST_BYTES
"""Of a longer text, signature and bands tell only the beginning; its prints are of the whole."""
ALIKE = 0.85
"""Share of equal entries from which two files count as near duplicates."""

_SEED = 20260101

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
    prints: Prints
    """Text after text."""
    print_counts: npt.NDArray[np.int64]
    """Shape [texts]."""


def take_fingerprints(texts: Sequence[bytes]) -> Fingerprints:
    """The fingerprints of texts, the same on every machine and in whatever company a text is."""
    signatures, bands = [np.zeros((0, PERMUTATIONS), np.uint16)], [np.zeros((0, BANDS), np.uint32)]
    counts, keyed = [np.zeros(0, np.int64)], [*_pick_of_long(texts)]
    first = 0
    for piece in _cut(texts):
        shingles, found = hash_together(piece)
        signature, band = _sign(shingles, found)
        signatures.append(signature)
        bands.append(band)
        # What was cut off has its prints already.
        picked = pick_prints(shingles, found)
        short = np.array([len(text) <= LOOK_BYTES for text in texts[first : first + len(piece)]])
        keyed.append(picked[short[picked >> np.uint64(32)]] + (np.uint64(first) << np.uint64(32)))
        counts.append(found)
        first += len(piece)
    enough = np.concatenate(counts) >= LEAST_SHINGLES
    return Fingerprints(np.concatenate(signatures), np.concatenate(bands), enough, *gather_prints(keyed, len(texts)))


def _pick_of_long(texts: Sequence[bytes]) -> Iterator[Keyed]:
    for number, text in enumerate(texts):
        if len(text) > LOOK_BYTES:
            minima = pick_prints_of_long(text)
            yield key_prints(np.full(len(minima), number, np.uint64), minima)


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
    held = PIECE_BYTES
    for text in texts:
        if held >= PIECE_BYTES:
            pieces.append([])
            held = 0
        pieces[-1].append(text[:LOOK_BYTES])
        held += len(pieces[-1][-1]) + 1
    return pieces


def _sign(shingles: Hashes, counts: npt.NDArray[np.int64]) -> tuple[Signatures, Bands]:
    """Signatures and bands of texts, of whose shingles so many are each one's."""
    offsets = np.concatenate([[0], np.cumsum(counts)])
    matrix: Any = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets.tolist(), PERMUTATIONS, _SEED)
    minima = np.array(matrix.to_rows(), np.uint64).reshape(len(counts), PERMUTATIONS)
    rows = PERMUTATIONS // BANDS
    mixed = (minima.reshape(len(counts), BANDS, rows) * powers()[1 : rows + 1]).sum(axis=2, dtype=np.uint64)
    return (minima & np.uint64(0xFFFF)).astype(np.uint16), (mix(mixed) >> np.uint64(32)).astype(np.uint32)


def map_signatures(path: Path) -> Signatures:
    """A file of signatures one after the other, of shape [signatures, PERMUTATIONS]: read where it is looked at."""
    if not path.stat().st_size:
        return np.zeros((0, PERMUTATIONS), np.uint16)
    return np.memmap(path, np.uint16, "r").reshape(-1, PERMUTATIONS)
