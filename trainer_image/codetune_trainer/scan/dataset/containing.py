"""Which files to train on contain a held-out one: by prints in common, then shingle by shingle. Pure, over columns.

How much of a held-out file another one contains is |shingles of both| / |shingles of the held-out file| (Broder, "On
the resemblance and containment of documents", 1997): a bundle contains its modules whole, however unlike they are.

All prints of all files are too many for memory, but those of the held-out files are few. So the others go by in pieces,
and a table of their upper bits tells most of them to be none of a held-out file. Pairs of files that have
enough prints in common are then compared exactly, text against text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from codetune_trainer.scan.dataset.deciding import Contained, Flags, Indices, Sides
from codetune_trainer.scan.dataset.ledger import Records
from codetune_trainer.scan.dataset.likeness import LEAST_SHINGLES
from codetune_trainer.scan.dataset.shingling import Hashes, hash_by_pieces, sort_once
from codetune_trainer.scan.dataset.winnowing import WINDOW, Prints, cut_print, find_minima

CONTAINED = 0.8
"""Share of a held-out file's shingles from which another file counts as containing it."""
_WORTH_COMPARING = 0.5
"""Share of a held-out file's prints that another file must have. A shingle that is lost takes with it the prints of the
windows around. In a tree of 12,000 files 118 of the 119 pairs that had `CONTAINED` in common had half of the prints."""
_FEW_HELD_OUT, _SOME_HELD_OUT, _FEW_TRAINED = 3, 64, 16
"""What stands in more held-out files than few and in more others than few is commonplace, a preamble or a notice of
licence, and tells nothing; nor does what stands in more held-out files than some."""
_PRINTS_TOGETHER = 1 << 17
"""Each of which stands for up to `_SOME_HELD_OUT` pairs."""
_COMPARED_TOGETHER = 1 << 19
"""Prints of held-out files whose shingles are in memory together, eight times as many."""
_TABLE_BITS = 24

PrintsFrom = Callable[[int, int], Prints]
TextOf = Callable[[int], bytes]


@dataclass(frozen=True)
class _HeldOut:
    """The prints of held-out files."""

    values: Prints
    """Each print once, in order."""
    first: Indices
    """Where its files begin among `files`; one more at the end."""
    files: Indices
    table: Flags
    """Whether there is a print with these upper bits."""

    def find(self, prints: Prints) -> tuple[Indices, Indices]:
        """Which of some prints are among them, and where."""
        likely = np.flatnonzero(self.table[prints >> np.uint32(32 - _TABLE_BITS)])
        places = np.minimum(np.searchsorted(self.values, prints[likely]), len(self.values) - 1)
        found = self.values[places] == prints[likely]
        return likely[found], places[found]


def find_contained(records: Records, sides: Sides, prints_from: PrintsFrom, text_of: TextOf) -> dict[int, Contained]:
    """Of each file to train on that contains held-out ones: which.

    Args:
        records: Every file that was found, sorted by path.
        sides: Where each file goes.
        prints_from: So many prints from that place.
        text_of: The text that prints were made of, of a file.
    """
    trained = sides.kept & ~sides.held_out
    held_out = _gather(records, sides.kept & sides.held_out, prints_from)
    if not len(held_out.values) or not trained.any():
        return {}
    telling = _find_telling(records, trained, held_out, prints_from)
    pairs = _find_pairs(records, trained, held_out, telling, prints_from)
    found: dict[int, Contained] = {}
    for some in _cut_pairs(pairs, records):
        _compare(some, held_out.values[~telling], text_of, found)
    return found


def _walk(records: Records, of: Flags, prints_from: PrintsFrom) -> Iterator[tuple[Indices, Prints]]:
    """The prints of some files in the order in which they lie, and whose each one is; a file's own ones together."""
    having = np.flatnonzero(records["prints"])
    having = having[np.argsort(records["prints_at"][having], kind="stable")]
    counts = records["prints"][having].astype(np.int64)
    at = records["prints_at"][having].astype(np.int64)
    pieces = np.cumsum(counts) // _PRINTS_TOGETHER
    for piece in np.split(np.arange(len(having)), np.flatnonzero(np.diff(pieces)) + 1):
        if not of[having[piece]].any():
            continue
        first, end = at[piece[0]], at[piece[-1]] + counts[piece[-1]]
        owners = np.repeat(having[piece], counts[piece])
        asked = of[owners]
        yield owners[asked], prints_from(int(first), int(end - first))[asked]


def _gather(records: Records, of: Flags, prints_from: PrintsFrom) -> _HeldOut:
    pieces = [*_walk(records, of, prints_from)]
    owners = np.concatenate([np.zeros(0, np.int64), *(owners for owners, _ in pieces)])
    prints = np.concatenate([np.zeros(0, np.uint32), *(prints for _, prints in pieces)])
    order = np.argsort(prints, kind="stable")
    values, first = np.unique(prints[order], return_index=True)
    table = np.zeros(1 << _TABLE_BITS, np.bool_)
    table[values >> np.uint32(32 - _TABLE_BITS)] = True
    return _HeldOut(values, np.append(first, len(prints)), owners[order], table)


def _find_telling(records: Records, trained: Flags, held_out: _HeldOut, prints_from: PrintsFrom) -> Flags:
    """Of each print of the held-out files, whether it is not commonplace."""
    in_trained = np.zeros(len(held_out.values), np.int64)
    for _, prints in _walk(records, trained, prints_from):
        in_trained += np.bincount(held_out.find(prints)[1], minlength=len(in_trained))
    in_held_out = np.diff(held_out.first)
    few = (in_held_out <= _FEW_HELD_OUT) | (in_trained <= _FEW_TRAINED)
    telling: Flags = few & (in_held_out <= _SOME_HELD_OUT)
    return telling


def _find_pairs(
    records: Records, trained: Flags, held_out: _HeldOut, telling: Flags, prints_from: PrintsFrom
) -> Indices:
    """Pairs of a held-out file and another one with enough prints in common, in order; shape [pairs, 2]."""
    sizes = np.diff(held_out.first)
    own = np.bincount(held_out.files[np.repeat(telling, sizes)], minlength=len(records))
    pairs = [np.zeros((0, 2), np.int64)]
    for owners, prints in _walk(records, trained, prints_from):
        which, places = held_out.find(prints)
        which, places = which[telling[places]], places[telling[places]]
        counts = sizes[places]
        before = np.cumsum(counts) - counts
        entries = np.repeat(held_out.first[places] - before, counts) + np.arange(counts.sum())
        keys = held_out.files[entries] * len(records) + np.repeat(owners[which], counts)
        both, common = np.unique(keys, return_counts=True)
        first, second = both // len(records), both % len(records)
        enough = common >= _WORTH_COMPARING * own[first]
        pairs.append(np.stack([first[enough], second[enough]], axis=1))
    every: Indices = np.concatenate(pairs)
    every = every[np.lexsort((every[:, 1], every[:, 0]))]
    return every


def _cut_pairs(pairs: Indices, records: Records) -> Iterator[Indices]:
    """Pairs in pieces by their held-out files, so that the shingles of those fit into memory."""
    if not len(pairs):
        return
    begins = np.flatnonzero(np.diff(pairs[:, 0], prepend=-1))
    held = np.cumsum(records["prints"][pairs[begins, 0]].astype(np.int64)) // _COMPARED_TOGETHER
    yield from np.split(pairs, begins[np.flatnonzero(np.diff(held)) + 1])


def _compare(pairs: Indices, commonplace: Prints, text_of: TextOf, found: dict[int, Contained]) -> None:
    """Add what the second ones of pairs contain of the first ones."""
    own: dict[int, Hashes] = {}
    for index in np.unique(pairs[:, 0]).tolist():
        shingles = _find_own_shingles(text_of(index), commonplace)
        if len(shingles) >= LEAST_SHINGLES:
            own[index] = shingles
    pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
    for of_one in np.split(pairs, np.flatnonzero(np.diff(pairs[:, 1])) + 1):
        asked = [index for index in of_one[:, 0].tolist() if index in own]
        if not asked:
            continue
        other = int(of_one[0, 1])
        shingles = sort_once(np.concatenate([*hash_by_pieces(text_of(other), 0)]))
        for index in asked:
            share = _share(own[index], shingles)
            if share >= CONTAINED:
                found[other] = Contained(index, share).join(found.get(other))


def _find_own_shingles(text: bytes, commonplace: Prints) -> Hashes:
    """The shingles of a text, each once, but for those in whose windows every print is commonplace."""
    found = [np.zeros(0, np.uint64)]
    for shingles in hash_by_pieces(text, WINDOW - 1):
        own = ~np.isin(cut_print(find_minima(shingles)), commonplace)
        telling = np.zeros(len(shingles), np.bool_)
        for place in range(WINDOW):
            telling[place : place + len(own)] |= own
        found.append(sort_once(shingles[telling]))
    return sort_once(np.concatenate(found))


def _share(some: Hashes, every: Hashes) -> float:
    """How much of some sorted hashes is among others, sorted too."""
    places = np.minimum(np.searchsorted(every, some), len(every) - 1)
    return int(np.count_nonzero(every[places] == some)) / len(some)
