"""How right a run's remaining time is: trains through the real contracts and holds what was said against what came.

Every progress line of a whole run counts from a fifth of its time on: evaluation of the base, steps, checkpoints with
their measurements, and the evaluation at the end. The last seconds are left out, where a second more or less is much.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from codetune_api.contracts import DatasetManifest, TrainConfig
from codetune_api.finetune import Checkpoints, EarlyStopping, LoraOverrides, TrainingOverrides
from codetune_api.protocol import ProgressEvent, ResultEvent, parse

NONCE = "benchmark-benchmark"
FROM = 0.2
"""Share of the run's time from which on the remaining time counts."""
LAST_SECONDS = 5.0
"""What is left out at the end."""


class Said(NamedTuple):
    """One progress line."""

    at: float
    """Seconds since the start of the process."""
    step: int
    total: int
    remaining: float
    """Seconds."""


def run(options: argparse.Namespace, folder: Path) -> tuple[list[Said], float]:
    """A run to its end: what it said, and when its result came. Raises: RuntimeError."""
    (folder / "dataset").symlink_to(Path(options.dataset).resolve())
    (folder / "config.json").write_text(json.dumps(build_config(options).to_wire()))
    places = {"CONFIG": folder / "config.json", "STORE": folder, "SCRATCH": folder / "scratch"}
    places |= {"MODEL": Path(options.model).resolve(), "TERMINATION_LOG": folder / "termination"}
    environment = {**os.environ, **{f"CODETUNE_{name}": str(path) for name, path in places.items()}}
    environment |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}  # as the operator sets them
    line, began = [sys.executable, "-m", "codetune_trainer", "train"], time.monotonic()
    said, ended = [], 0.0
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for text in process.stdout or ():
            event, now = parse(text, NONCE), time.monotonic() - began
            if isinstance(event, ProgressEvent) and event.remaining is not None:
                said.append(Said(now, event.step, event.total, event.remaining))
            if isinstance(event, ResultEvent):
                ended = now
    if process.returncode:
        raise RuntimeError(f"the run failed: {(folder / 'termination').read_text()}")
    return said, ended


def build_config(options: argparse.Namespace) -> TrainConfig:
    """Like a FineTune with the preset Smaller."""
    manifest = DatasetManifest.model_validate_json((Path(options.dataset) / "manifest.json").read_text())
    return TrainConfig(
        nonce=NONCE,
        namespace="benchmark",
        name="eta",
        dataset="dataset",
        dataset_revision=manifest.revision,
        output="run",
        base_model="file:///model",
        device="cpu",
        gpus=0,
        preset="Smaller",
        lora=LoraOverrides(),
        training=TrainingOverrides(
            max_steps=options.steps,
            batch_tokens=options.batch_tokens,
            learning_rate=options.rate,
            early_stopping=EarlyStopping(patience=options.patience),
        ),
        checkpoints=Checkpoints(every_steps=options.every),
    )


def main() -> None:
    """Run, and print what was said against the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="folder of a Codetune dataset with held-out files")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=8, help="steps between checkpoints")
    parser.add_argument("--patience", type=int, default=5, help="checkpoints without a lower held-out loss")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=6e-4, help="0.1 makes the loss rise, so that the run stops early")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        said, ended = run(options, Path(folder))
    print("| share of the time | step | said | truth | off by |\n|---|---|---|---|---|")
    worst = 0.0
    for line in said:
        truth = ended - line.at
        error = (line.remaining - truth) / truth if truth > LAST_SECONDS else 0.0
        worst = max(worst, abs(error)) if line.at >= FROM * ended else worst
        where = f"{line.at / ended:.0%} | {line.step} of {line.total}"
        print(f"| {where} | {line.remaining:.0f} s | {truth:.0f} s | {error:+.0%} |")
    print(f"\nWorst from {FROM:.0%} of the {ended:.0f} s on, but for the last {LAST_SECONDS:g} s: {worst:.0%}")


if __name__ == "__main__":
    main()
