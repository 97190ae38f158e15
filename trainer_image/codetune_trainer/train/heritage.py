"""Which texts an adapter has seen: a list beside each run's artifacts, with those of the runs that it goes on from.

A text that the run before was trained on says nothing in the evaluation of this one, although its own dataset holds it
out: another share is held out now, or it is another Project.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from codetune_api.contracts import TrainConfig
from codetune_bucket.mirroring import Mirror

from codetune_trainer.manifests import replace_text
from codetune_trainer.train.data.documents import Dataset, choose_unseen
from codetune_trainer.train.names import START, TRAINED

_HEAD = "codetune trained texts 1"
_PARTIAL = "and others of an earlier run without a list"
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Trained:
    """What an adapter was trained on."""

    digests: frozenset[str]
    """SHA-256 of each text, as `digest_text` has them."""
    is_whole: bool = True
    """Whether these are all: no run that it goes on from is older than such lists."""


def add(before: Trained | None, digests: frozenset[str]) -> Trained:
    """The texts of a run and of what it began with; None: it began anew."""
    return Trained(digests) if before is None else Trained(digests | before.digests, before.is_whole)


def read(path: Path) -> Trained:
    """A list; an empty one that is not whole where it is missing or damaged."""
    try:
        head, *lines, count = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return Trained(frozenset(), False)
    if (
        head not in (_HEAD, f"{_HEAD}, {_PARTIAL}")
        or count != str(len(lines))
        or not all(map(_DIGEST.fullmatch, lines))
    ):
        return Trained(frozenset(), False)
    return Trained(frozenset(lines), head == _HEAD)


def write(folder: Path, trained: Trained) -> None:
    """Put a list into a run's folder: a head, a line for each text, and how many there are."""
    head = _HEAD if trained.is_whole else f"{_HEAD}, {_PARTIAL}"
    replace_text(folder / TRAINED, "\n".join([head, *sorted(trained.digests), str(len(trained.digests)), ""]))


def find(config: TrainConfig, folder: Path) -> Trained | None:
    """What the adapter that a run begins with was trained on; None for a fresh one."""
    return None if config.start is None else read(folder / START / TRAINED)


def keep(config: TrainConfig, folder: Path, trained: Trained, mirror: Mirror) -> None:
    """Leave the list for runs that begin with this one's adapter. Raises: OSError, BucketError."""
    write(folder, trained)
    mirror.push_file(f"{config.output}/{TRAINED}")


def leave_out(dataset: Dataset, before: Trained | None) -> tuple[Dataset, str]:
    """The dataset without the held-out files that were trained on before, and a sentence that says so; or none."""
    if before is None or not dataset.holdout:
        return dataset, ""
    unseen = choose_unseen(dataset.holdout, before.digests)
    return replace(dataset, holdout=unseen), _say(len(dataset.holdout) - len(unseen), len(dataset.holdout), before)


def _say(seen: int, files: int, before: Trained) -> str:
    told = []
    if seen:
        told.append(
            f"{seen} of {files} held-out files are left out of the evaluation: the adapter that the run begins with "
            "was trained on them."
        )
    if not before.is_whole:
        told.append(
            "What the adapter that the run begins with was trained on is not all known, so held-out files may be among "
            "it, and the improvement be less than it seems."
        )
    return " ".join(told)
