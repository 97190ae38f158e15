"""What the base model scored, kept in the run's folder: an attempt that goes on does not measure it again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codetune_trainer.manifests import replace_text
from codetune_trainer.train.names import ANSWERS, BASELINE
from codetune_trainer.train.scoring.answering import Mark
from codetune_trainer.train.scoring.judging import Scored


@dataclass(frozen=True)
class Baseline:
    """The base model's scores, and how long the tuned model will take for the same."""

    scored: Scored
    measuring_seconds: float
    """For the held-out loss, as at every checkpoint."""
    answering_seconds: float
    """For everything else, once, at the end of the run."""


def load(folder: Path, digest: str) -> Baseline | None:
    """The scores of this sample; None when they are not there, not whole, or of another one."""
    try:
        found = json.loads((folder / BASELINE).read_bytes())
        if found["sample"] != digest:
            return None
        marks = {key: [Mark(**mark) for mark in found["scored"][key]] for key in ("lines", "middles")}
        files = [(float(total), int(count)) for total, count in found["scored"]["files"]]
        scored = Scored(float(found["scored"]["loss"]), files, **marks)
        return Baseline(scored, float(found["measuringSeconds"]), float(found["answeringSeconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(folder: Path, digest: str, baseline: Baseline) -> None:
    """Keep the scores of a sample."""
    told = {
        "sample": digest,
        "scored": asdict(baseline.scored),
        "measuringSeconds": baseline.measuring_seconds,
        "answeringSeconds": baseline.answering_seconds,
    }
    replace_text(folder / BASELINE, json.dumps(told))


def save_answers(folder: Path, told: dict[str, Any]) -> None:
    """Keep every mark that the evaluation is made of."""
    replace_text(folder / ANSWERS, json.dumps(told))
