"""Packs documents into sequences of one length, without one document seeing another. Pure.

Best-fit decreasing: documents are cut into pieces of at most the sequence length, and each piece goes into the sequence
that it fills best, so that little is padded and little is cut.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

IGNORED = -100
"""Label of a position without a target, as torch's cross-entropy has it."""


@dataclass(frozen=True)
class Packed:
    """Sequences of one length.

    tokens, labels, positions, segments: shape [sequences, length]. `labels[i]` is the token after `tokens[i]` in the
    same piece, or IGNORED; `positions` begin anew with each piece; `segments` number the pieces, padding is -1.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def choose(self, rows: slice | Sequence[int]) -> "Packed":
        """Some of the sequences."""
        return Packed(self.tokens[rows], self.labels[rows], self.positions[rows], self.segments[rows])

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        return Packed(*(found.to(device) for found in (self.tokens, self.labels, self.positions, self.segments)))

    @property
    def targets(self) -> int:
        """Positions that have a target."""
        return int((self.labels != IGNORED).sum())

    @property
    def is_shared(self) -> bool:
        """Whether any sequence holds more than one piece."""
        return bool((self.segments > 0).any())

    def mask(self) -> torch.Tensor:
        """Shape [sequences, 1, length, length]; True where a query (row) may look at a key (column)."""
        same = self.segments[:, None, :, None] == self.segments[:, None, None, :]
        length = self.tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.tokens.device).tril()
        return same & causal

    def spans(self) -> list[tuple[int, int, int]]:
        """(sequence, first position, position after the last) of each piece."""
        found = []
        for row, segments in enumerate(self.segments.tolist()):
            start = 0
            for segment, places in itertools.groupby(segments):
                stop = start + len(list(places))
                if segment >= 0:
                    found.append((row, start, stop))
                start = stop
        return found


def join(parts: Sequence[Packed]) -> Packed:
    """Sequences of several, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Packed(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.positions for part in parts]),
        torch.cat([part.segments for part in parts]),
    )


def cut_pieces(document: Sequence[int], length: int, begin: Sequence[int] = ()) -> list[list[int]]:
    """A document in pieces of at most `length` tokens, each with the model's own `begin` before it."""
    room = length - len(begin)
    return [[*begin, *document[at : at + room]] for at in range(0, len(document), room)]


def count_pieces(sizes: Iterable[int], length: int, begin: Sequence[int] = ()) -> int:
    """How many pieces `cut_pieces` makes of documents of so many tokens."""
    return sum(math.ceil(size / (length - len(begin))) for size in sizes)


def pack(pieces: Iterable[Sequence[int]], length: int, padding: int, *, shared: bool = True) -> Packed:
    """Pack pieces of at most `length` tokens; the order of the sequences is that of their first pieces.

    Args:
        pieces: Token ids.
        length: Tokens in a sequence.
        padding: Token that fills what is left.
        shared: Whether several pieces may share a sequence.
    """
    found = [list(piece) for piece in pieces]
    bins = _fit([len(piece) for piece in found], length) if shared else [[index] for index in range(len(found))]
    return _lay_out(bins, found, length, padding)


def _fit(sizes: list[int], length: int) -> list[list[int]]:
    """Which pieces share a sequence: indices into `sizes`."""
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for index in sorted(range(len(sizes)), key=lambda found: (-sizes[found], found)):
        at = bisect.bisect_left(rooms, (sizes[index], -1))
        if at == len(rooms):
            free, chosen = length, len(bins)
            bins.append([])
        else:
            free, chosen = rooms.pop(at)
        bins[chosen].append(index)
        if free > sizes[index]:
            bisect.insort(rooms, (free - sizes[index], chosen))
    return sorted(bins, key=lambda found: found[0])


def _lay_out(bins: list[list[int]], pieces: list[list[int]], length: int, padding: int) -> Packed:
    tokens = torch.full((len(bins), length), padding)
    labels = torch.full((len(bins), length), IGNORED)
    positions = torch.zeros(len(bins), length, dtype=torch.long)
    segments = torch.full((len(bins), length), -1)
    for row, chosen in enumerate(bins):
        start = 0
        for segment, index in enumerate(chosen):
            piece = torch.tensor(pieces[index])
            stop = start + len(piece)
            tokens[row, start:stop] = piece
            labels[row, start : stop - 1] = piece[1:]
            positions[row, start:stop] = torch.arange(len(piece))
            segments[row, start:stop] = segment
            start = stop
    return Packed(tokens, labels, positions, segments)
