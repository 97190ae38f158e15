"""Prints of a text: few of its shingles, chosen so that two texts with a run of words in common have a print in common.

Winnowing (Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms for document fingerprinting", SIGMOD 2003): of
every `WINDOW` shingles in a row, the one with the smallest hash is kept. Which one that is depends on these shingles
alone, so a run of WINDOW + 4 words that stands in two texts leaves the same print in both. About 2 shingles in
WINDOW + 1 are kept.

A sketch that keeps each shingle whose hash is below a fraction of all hashes (FracMinHash: Irber et al. 2022, Hera et
al. 2023) estimates how much two texts share, which winnowing does not. But with the same number of prints (an eighth)
it keeps none at all of 4 % of the texts of 24 shingles, and those texts could be trained on. Here prints only tell
which texts to compare, shingle by shingle.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codetune_trainer.scan.dataset.shingling import Hashes, hash_by_pieces, sort_once

WINDOW = 16
"""Shingles in a row of which one is kept: fewer than the shortest text that is compared has, so that each has one."""

Prints = npt.NDArray[np.uint32]
"""The low halves of the hashes: the smallest ones have much the same high halves."""
Keyed = npt.NDArray[np.uint64]
"""Prints, each below the number of its text."""


def find_minima(shingles: Hashes) -> Hashes:
    """The smallest of every `WINDOW` shingles in a row; none where there are fewer."""
    if len(shingles) < WINDOW:
        return np.zeros(0, np.uint64)
    width = 1
    while width < WINDOW:
        shingles = np.minimum(shingles[:-width], shingles[width:])
        width *= 2
    return shingles


def pick_prints(shingles: Hashes, counts: npt.NDArray[np.int64]) -> Keyed:
    """The prints of texts; one may come several times.

    Args:
        shingles: Of the texts, one after the other.
        counts: How many each text has.
    """
    of_text = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    minima = find_minima(shingles)
    first, last = of_text[: len(minima)], of_text[WINDOW - 1 :]
    taken = first == last
    # Neighbouring windows mostly have the same smallest one.
    taken[1:] &= (minima[1:] != minima[:-1]) | (last[1:] != last[:-1]) | ~taken[:-1]
    return key_prints(first[taken], minima[taken])


def pick_prints_of_long(text: bytes) -> Hashes:
    """The smallest shingle of every window of a text of any length, each once."""
    found = [sort_once(find_minima(piece)) for piece in hash_by_pieces(text, WINDOW - 1)]
    return sort_once(np.concatenate([np.zeros(0, np.uint64), *found]))


def key_prints(of_text: npt.NDArray[np.uint64], minima: Hashes) -> Keyed:
    """The prints that smallest hashes make, with the numbers of their texts."""
    return (of_text << np.uint64(32)) | cut_print(minima).astype(np.uint64)


def cut_print(minima: Hashes) -> Prints:
    """The prints that smallest hashes make."""
    return (minima & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def gather_prints(keyed: Sequence[Keyed], texts: int) -> tuple[Prints, npt.NDArray[np.int64]]:
    """Prints of so many texts, text after text and each once; and how many each text has."""
    every = sort_once(np.concatenate([np.zeros(0, np.uint64), *keyed]))
    counts = np.bincount((every >> np.uint64(32)).astype(np.int64), minlength=texts)
    return cut_print(every), counts


def map_prints(path: Path) -> Prints:
    """A file of prints one after the other: read where it is looked at."""
    if not path.stat().st_size:
        return np.zeros(0, np.uint32)
    return np.asarray(np.memmap(path, np.uint32, "r"))
