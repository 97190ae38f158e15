"""Settles what takes all files at once: copies, near copies, and which files are held out. Pure, over columns.

Files with one content, however they end their lines, are one **unit**; units that are alike and are all kept form one
**group**. A group stands on one side of the split as a whole. The split follows the digests of contents, so it depends
neither on paths nor on what other files there are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from codetune_api.project import FileRules

from codetune_trainer.scan.dataset.ledger import DIGEST_BYTES, MUST, WANTED, Records
from codetune_trainer.scan.dataset.likeness import ALIKE, BANDS, Signatures, likenesses
from codetune_trainer.scan.records import REASONS

_MOST_CANDIDATES = 64
"""Units of one band that a unit is compared with: what thousands of files share must not cost their square."""

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
SignaturesOf = Callable[[Sequence[int]], Signatures]


@dataclass(frozen=True, slots=True)
class Original:
    """What a file is a copy of."""

    index: int
    share: float
    """How alike the two are; 1 for the same content."""
    reason: Literal["Duplicate", "NearDuplicate"]


@dataclass(frozen=True, slots=True)
class Contained:
    """What a file contains of held-out ones."""

    index: int
    """The one that it contains most of; the first of several."""
    share: float
    """How much of that."""
    others: int = 0
    """How many more it contains."""

    def join(self, other: "Contained | None") -> "Contained":
        """Both together, of one file."""
        if other is None:
            return self
        most = max(self, other, key=lambda one: (one.share, -one.index))
        return replace(most, others=self.others + other.others + 1)


@dataclass
class Copies:
    """What is known of copies among the files of a scan."""

    reasons: npt.NDArray[np.uint8]
    """Of each file, its reason now: that of its own rules, or one that takes all files at once."""
    units: Indices
    """Of each file, the first file of its unit: the one that is kept when one alone is; -1 for rejected ones."""
    originals: dict[int, Original] = field(default_factory=dict)
    """Of the files that are copies: of what. One whose reason is none was kept all the same."""
    low_quality: dict[int, str] = field(default_factory=dict)
    """Of the files that a base model finds improbable: what it saw. One whose reason is none was kept all the same."""
    contained: dict[int, Contained] = field(default_factory=dict)
    """Of the files that were to be trained on and contain held-out ones: what."""
    groups: dict[int, int] = field(default_factory=dict)
    """Of the units that others are alike to: one of the same group, whose own one is told here too; that of the unit
    that decides for all is itself. One entry a unit, however many are alike."""


@dataclass(frozen=True)
class Sides:
    """Where each file goes."""

    kept: Flags
    held_out: Flags
    """Of the kept ones, whether it is held out."""
    decided_by: Mapping[int, int]
    """Of those that are held out though nothing about themselves asks for it: the file that decided; itself when it is
    held out so that something is."""


def find_copies(
    records: Records,
    signatures_of: SignaturesOf,
    rules: FileRules,
    fraction: float,
) -> Copies:
    """Which files are copies or near copies of others.

    The order of the paths decides which of several is the original. But near copies are compared to what is to be held
    out first: what is like a held-out file is then left out of training, rather than the other way round. So a file
    that is added takes no other one from the held-out side to the other.

    Args:
        records: Every file that was found, sorted by path.
        signatures_of: The signatures of the files at these indices.
        rules: `files`, for `duplicates` and `nearDuplicates`.
        fraction: `holdout.fraction`.
    """
    copies = Copies(records["reason"].copy(), np.full(len(records), -1, np.int64))
    accepted = np.flatnonzero(records["reason"] == 0)
    _, first, of_unit = np.unique(records["normal"][accepted], return_index=True, return_inverse=True)
    copies.units[accepted] = accepted[first][of_unit]
    if rules.duplicates == "Reject":
        for index in accepted[copies.units[accepted] != accepted].tolist():
            _reject(copies, records, index, Original(int(copies.units[index]), 1.0, "Duplicate"))
    if rules.near_duplicates != "Ignore":
        firsts = np.sort(accepted[first])
        held_out = _asked_for(records, copies) | _is_below(records["chance"], fraction)
        ranked = firsts[np.argsort(~held_out[firsts], kind="stable")]
        _find_near_copies(copies, records, ranked, signatures_of, reject=rules.near_duplicates == "Reject")
    return copies


def _asked_for(records: Records, copies: Copies) -> Flags:
    """Of each unit, whether one of its files is to be held out, be it one that was rejected as a copy."""
    asked = np.zeros(len(records), np.bool_)
    accepted = np.flatnonzero(copies.units >= 0)
    np.logical_or.at(asked, copies.units[accepted], (records["flags"][accepted] & MUST) != 0)
    return asked


def _reject(copies: Copies, records: Records, index: int, original: Original) -> bool:
    """Reject a copy unless `files.include` wants it; returns whether it was."""
    copies.originals[index] = original
    if records["flags"][index] & WANTED:
        return False
    copies.reasons[index] = REASONS.index(original.reason)
    return True


def _find_near_copies(
    copies: Copies, records: Records, firsts: Indices, signatures_of: SignaturesOf, *, reject: bool
) -> None:
    known = _Neighbours(signatures_of)
    members = _members(copies)
    for unit, bands in _that_may_be_alike(records, firsts):
        near = known.find(unit, bands)
        if near and reject:
            original = max(near, key=lambda found: (found.share, -found.index))
            rest = [index for index in members.get(unit, [unit]) if copies.reasons[index] == 0]
            gone = [_reject(copies, records, index, original) for index in rest]
            if all(gone):
                continue
        for original in near:
            _join(copies.groups, records, unit, original.index)
        known.add(unit, bands)


def _join(groups: dict[int, int], records: Records, first: int, second: int) -> None:
    """Make one group of those of two units. The smallest digest leads: one more unit rarely changes that."""
    leader, other = sorted(
        (_lead(groups, first), _lead(groups, second)), key=lambda unit: bytes(records["normal"][unit])
    )
    groups[leader] = groups[other] = leader


def _lead(groups: dict[int, int], unit: int) -> int:
    """The unit that decides for a unit's group; shortens the way to it."""
    while (above := groups.get(unit, unit)) != unit:
        groups[unit] = groups[above]
        unit = above
    return unit


def _members(copies: Copies) -> dict[int, list[int]]:
    """The files of each unit that has several."""
    members: dict[int, list[int]] = {}
    followers = np.flatnonzero((copies.units >= 0) & (copies.units != np.arange(len(copies.units))))
    for index in followers.tolist():
        unit = int(copies.units[index])
        members.setdefault(unit, [unit]).append(index)
    return members


def _that_may_be_alike(records: Records, firsts: Indices) -> Iterator[tuple[int, list[int]]]:
    """Units that share a band with another one, in their order; and which ones, each with its place in one number."""
    compared = firsts[records["signature"][firsts] >= 0]
    bands = records["bands"][compared]
    shared = np.zeros(bands.shape, np.bool_)
    for place, band in enumerate(bands.T):
        order = np.argsort(band)
        same = np.flatnonzero(band[order[1:]] == band[order[:-1]])
        shared[order[same], place] = shared[order[same + 1], place] = True
    places = np.arange(BANDS, dtype=np.uint64) << np.uint64(32)
    for row in np.flatnonzero(shared.any(axis=1)).tolist():
        yield int(compared[row]), (bands[row] + places)[shared[row]].tolist()


class _Neighbours:
    """Units that are kept, by their bands."""

    def __init__(self, signatures_of: SignaturesOf) -> None:
        self._signatures_of = signatures_of
        self._buckets: dict[int, list[int]] = {}

    def find(self, unit: int, bands: Sequence[int]) -> list[Original]:
        """Those that the unit is alike to."""
        buckets = (self._buckets.get(band, ()) for band in bands)
        candidates = dict.fromkeys(other for bucket in buckets for other in bucket[:_MOST_CANDIDATES])
        if not candidates:
            return []
        signatures = self._signatures_of([unit, *candidates])
        found = zip(candidates, likenesses(signatures[0], signatures[1:]).tolist(), strict=True)
        return [Original(other, share, "NearDuplicate") for other, share in found if share >= ALIKE]

    def add(self, unit: int, bands: Sequence[int]) -> None:
        """One more that others may be alike to."""
        for band in bands:
            self._buckets.setdefault(band, []).append(unit)


def reject_low_quality(records: Records, copies: Copies, low_quality: Mapping[bytes, str]) -> None:
    """Reject those of the files that are left whose content a base model finds improbable, unless they are wanted.

    Args:
        records: As for `find_copies`.
        copies: What became of them; changed.
        low_quality: Digest of each such content, and what was seen.
    """
    for index in np.flatnonzero(copies.reasons == 0).tolist() if low_quality else ():
        seen = low_quality.get(bytes(records["digest"][index]).ljust(DIGEST_BYTES, b"\0"))
        if seen is None:
            continue
        copies.low_quality[index] = seen
        if not records["flags"][index] & WANTED:
            copies.reasons[index] = REASONS.index("LowQuality")


def choose_sides(records: Records, copies: Copies, fraction: float) -> Sides:
    """Which of the files that are left are held out.

    A fraction holds out at least one group and leaves at least one, however few there are.

    Args:
        records: As for `find_copies`.
        copies: What became of them.
        fraction: `holdout.fraction`.
    """
    kept = copies.reasons == 0
    must = _asked_for(records, copies)
    units = np.unique(copies.units[kept])
    leader = np.arange(len(records))
    for unit in copies.groups:
        leader[unit] = _lead(copies.groups, unit)
    must_lead = np.zeros(len(records), np.bool_)
    np.logical_or.at(must_lead, leader[units], must[units])
    chosen = must_lead | _choose(records["chance"], np.unique(leader[units]), must_lead, fraction)
    held_out = np.zeros(len(records), np.bool_)
    held_out[kept] = chosen[leader[copies.units[kept]]]
    return Sides(kept, held_out, _find_deciders(records, copies, held_out, leader, fraction))


def reject_containing(copies: Copies, sides: Sides, contained: Mapping[int, Contained]) -> Sides:
    """Reject files to train on that contain held-out ones, wanted or not: they are what must not be trained on.

    Args:
        copies: What became of the files; changed.
        sides: Where each file would go.
        contained: What each of these files contains.

    Returns:
        Where each file goes.
    """
    copies.contained.update(contained)
    gone = [*contained]
    copies.reasons[gone] = REASONS.index("ContainsHeldOut")
    kept = sides.kept.copy()
    kept[gone] = False
    return replace(sides, kept=kept)


def _find_deciders(
    records: Records, copies: Copies, held_out: Flags, leader: Indices, fraction: float
) -> dict[int, int]:
    """For `Sides.decided_by`: the first file of the unit that is asked to be held out, else of the group, else the
    group's leader."""
    asked = (records["flags"] & MUST) != 0
    turned = np.flatnonzero(held_out & ~asked & ~_is_below(records["chance"], fraction))
    if not len(turned):
        return {}
    alive = np.zeros(len(records), np.bool_)
    alive[copies.units[copies.reasons == 0]] = True  # as in choose_sides: a unit that is gone asks for nothing
    asking = np.flatnonzero(asked & (copies.units >= 0))
    asking = asking[alive[copies.units[asking]]]
    none = len(records)
    of_unit, of_group = np.full(none, none), np.full(none, none)
    np.minimum.at(of_unit, copies.units[asking], asking)
    np.minimum.at(of_group, leader[copies.units[asking]], asking)
    unit = copies.units[turned]
    lead = leader[unit]
    found = np.where(lead == unit, turned, lead)
    for nearer in (of_group[lead], of_unit[unit]):
        found = np.where(nearer < none, nearer, found)
    return dict(zip(turned.tolist(), found.tolist(), strict=True))


def _choose(chance: npt.NDArray[np.uint64], groups: Indices, must: Flags, fraction: float) -> Flags:
    chosen = np.zeros(len(chance), np.bool_)
    free = groups[~must[groups]]
    free = free[np.argsort(chance[free], kind="stable")]
    below = free[_is_below(chance[free], fraction)]
    if fraction and not len(below) and not must[groups].any() and len(free) > 1:
        below = free[:1]
    if len(free) and len(below) == len(free):
        below = below[:-1]
    chosen[below] = True
    return chosen


def _is_below(chance: npt.NDArray[np.uint64], fraction: float) -> Flags:
    below: Flags = chance < np.uint64(min(int(fraction * 2**64), 2**64 - 1))
    return below
