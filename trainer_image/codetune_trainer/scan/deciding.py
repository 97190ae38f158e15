"""Settles what takes all files at once: exact duplicates, low quality, and which files are held out. Pure.

The split follows digests, so it does not depend on what other files there are; copies of one content never stand on
both sides.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codetune_api.project import Holdout

from codetune_trainer.scan.quality import reject_low_quality
from codetune_trainer.scan.records import Judged

Decision = Literal["train", "holdout", "rejected"]


@dataclass(frozen=True, slots=True)
class Decided:
    """The last word on a file."""

    file: Judged
    decision: Decision


def decide(
    files: Sequence[Judged], *, holdout: Holdout, allow_duplicates: bool, low_quality: Mapping[bytes, str] | None = None
) -> list[Decided]:
    """What becomes of each file, in the same order.

    Args:
        files: Every file that was found, sorted by path.
        holdout: `spec.holdout`.
        allow_duplicates: Whether copies of one content are all taken.
        low_quality: Digests of the contents that `files.quality` rejects, and what it saw.
    """
    settled = files if allow_duplicates else _reject_copies(files)
    settled = reject_low_quality(settled, low_quality or {})
    held_out = _choose_held_out(_group(files, settled, holdout.fraction, allow_duplicates), holdout.fraction)
    return [
        Decided(file, "rejected" if file.reason else "holdout" if file.digest in held_out else "train")
        for file in settled
    ]


@dataclass(slots=True)
class _Group:
    """All accepted files of one content."""

    key: bytes
    """Uniform over all contents; small ones are held out."""
    must: bool
    """Whether `holdout.paths` asks for it, be it for a copy that was rejected."""


def _reject_copies(files: Sequence[Judged]) -> list[Judged]:
    first: dict[bytes, str] = {}
    settled: list[Judged] = []
    for file in files:
        original = "" if file.reason else first.setdefault(file.digest, file.path)
        if file.reason or original == file.path:
            settled.append(file)
        elif file.wanted:
            detail = f"files.include has it, against Duplicate: of {original}"
            settled.append(replace(file, overrode=True, detail=detail))
        else:
            settled.append(replace(file, reason="Duplicate", detail=f"of {original}"))
    return settled


def _group(
    files: Sequence[Judged], settled: Sequence[Judged], fraction: float, allow_duplicates: bool
) -> dict[bytes, _Group]:
    groups: dict[bytes, _Group] = {}
    accepted = {file.digest for file in settled if not file.reason}
    for before, file in zip(files, settled, strict=True):
        if before.reason or file.digest not in accepted:
            continue
        # With copies allowed a path would tie the split to which copy comes first.
        named = b"" if allow_duplicates else file.path.encode()
        group = groups.setdefault(file.digest, _Group(hashlib.sha256(named + b"\0" + file.digest).digest(), must=False))
        group.must = group.must or before.held_out
    return groups


def _choose_held_out(groups: dict[bytes, _Group], fraction: float) -> set[bytes]:
    """Contents to hold out. A fraction takes at least one and leaves at least one, however few there are."""
    must = {digest for digest, group in groups.items() if group.must}
    free = sorted((group.key, digest) for digest, group in groups.items() if not group.must)
    below = int(fraction * 2**64)
    chosen = [digest for key, digest in free if int.from_bytes(key[:8]) < below]
    if fraction and not chosen and not must and len(free) > 1:
        chosen = [free[0][1]]
    if free and len(chosen) == len(free):
        chosen.pop()
    return must | set(chosen)
