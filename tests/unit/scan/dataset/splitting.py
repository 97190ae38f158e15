"""Files that were judged by themselves, and what the split makes of them together."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from codetune_api.project import FileRules
from codetune_trainer.scan.dataset.deciding import Copies, Sides, choose_sides, find_copies, reject_low_quality
from codetune_trainer.scan.dataset.ledger import MUST, NORMAL_BYTES, RECORD, WANTED
from codetune_trainer.scan.dataset.likeness import take_fingerprints
from codetune_trainer.scan.digesting import digest_text
from codetune_trainer.scan.records import REASONS


@dataclass(frozen=True)
class File:
    """A file that was judged by itself."""

    path: str
    content: str
    held_out: bool = False
    wanted: bool = False
    reason: str = ""


def judged(
    path: str, content: str = "", *, held_out: bool = False, wanted: bool = False, reason: Literal["Empty", ""] = ""
) -> File:
    return File(path, content or path, held_out, wanted, reason)


@dataclass(frozen=True)
class Settled:
    """What became of files."""

    files: list[File]
    copies: Copies
    sides: Sides

    @property
    def decisions(self) -> list[str]:
        pairs = zip(self.sides.kept, self.sides.held_out, strict=True)
        return ["rejected" if not kept else "holdout" if held_out else "train" for kept, held_out in pairs]

    @property
    def reasons(self) -> list[str]:
        return [REASONS[number] for number in self.copies.reasons]

    def originals(self) -> dict[str, tuple[str, str]]:
        """Of each copy, its original and the rule that it falls under."""
        return {
            self.files[index].path: (self.files[original.index].path, original.reason)
            for index, original in self.copies.originals.items()
        }


def run(
    files: list[File],
    fraction: float,
    allow: bool = False,
    near: Literal["Reject", "Allow", "Ignore"] = "Reject",
    low_quality: Mapping[bytes, str] | None = None,
) -> Settled:
    taken = take_fingerprints([file.content.encode() for file in files])
    records: Any = np.zeros(len(files), RECORD)
    for index, file in enumerate(files):
        digest, normal = digest_text(file.content.encode())
        records[index]["reason"] = REASONS.index(file.reason)
        records[index]["digest"] = b"" if file.reason else digest
        records[index]["normal"] = b"" if file.reason else normal[:NORMAL_BYTES]
        records[index]["chance"] = int.from_bytes(hashlib.sha256(b"\0" + normal).digest()[:8])
        records[index]["flags"] = MUST * file.held_out | WANTED * file.wanted
        records[index]["signature"] = index if taken.comparable[index] and not file.reason else -1
    records["bands"] = taken.bands
    rules = FileRules(duplicates="Allow" if allow else "Reject", near_duplicates=near)
    copies = find_copies(records, lambda indices: taken.signatures[indices], rules, fraction)
    reject_low_quality(records, copies, low_quality or {})
    return Settled(files, copies, choose_sides(records, copies, fraction))


def split(files: list[File], fraction: float, allow: bool = False) -> dict[str, str]:
    settled = run(files, fraction, allow)
    return dict(zip([file.path for file in files], settled.decisions, strict=True))


def code(number: int, words: int = 200) -> str:
    """A text of its own of so many words."""
    return " ".join(f"word{number}_{place}" for place in range(words))


def altered(text: str) -> str:
    """The text with one word in its middle changed: about 95 % alike."""
    words = text.split()
    words[len(words) // 2] = "other"
    return " ".join(words)


def altered_at(text: str, place: int) -> str:
    """The text with the word at a place changed."""
    words = text.split()
    words[place] = "another"
    return " ".join(words)
