"""Trains the same model on the same dataset with the peer and with Codetune, in turn, and prints a table of ratios.

Each run is a process of its own. Real (non-padding) tokens per second over the steps after warm-up, peak memory of the
process (or of the GPU), and held-out loss after the run. Medians over `--runs` interleaved runs.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from codetune_api.contracts import DatasetManifest, TrainConfig
from codetune_api.finetune import Checkpoints, LoraOverrides, TrainingOverrides
from codetune_api.protocol import ProgressEvent, ResultEvent, parse

NONCE = "benchmark-benchmark"
HERE = Path(__file__).resolve().parent


def run_stock(options: argparse.Namespace, bf16: bool) -> dict[str, float]:
    """One run of the peer."""
    line = [sys.executable, str(HERE / "stock.py"), "--model", options.model, "--dataset", options.dataset]
    line += ["--steps", str(options.steps), "--length", str(options.length), "--batch", str(options.batch)]
    done = subprocess.run([*line, *(["--bf16"] if bf16 else [])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_codetune(options: argparse.Namespace, overrides: dict[str, Any]) -> dict[str, float]:
    """One run of `python -m codetune_trainer train`, through its own contract."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        (store / "dataset").symlink_to(Path(options.dataset).resolve())
        manifest = DatasetManifest.model_validate_json((store / "dataset" / "manifest.json").read_text())
        config = TrainConfig(
            nonce=NONCE,
            namespace="benchmark",
            name="benchmark",
            dataset="dataset",
            dataset_revision=manifest.revision,
            output="run",
            base_model="file:///model",
            device=options.device,
            gpus=int(options.device == "cuda"),
            preset="Smaller",
            lora=LoraOverrides(rank=16, alpha=32, dropout=0),
            training=TrainingOverrides(
                max_steps=options.steps,
                sequence_length=options.length,
                batch_tokens=options.batch * options.length,
                learning_rate=3e-4,
                fim_rate=0,
                **overrides,
            ),
            checkpoints=Checkpoints(every_steps=options.steps),
        )
        (store / "config.json").write_text(json.dumps(config.to_wire()))
        environment = {"CODETUNE_CONFIG": str(store / "config.json"), "CODETUNE_STORE": str(store)}
        environment |= {"CODETUNE_MODEL": str(options.model), "CODETUNE_SCRATCH": str(store)}
        environment |= {"CODETUNE_TERMINATION_LOG": str(store / "termination")}
        line = [sys.executable, "-m", "codetune_trainer", "train"]
        output = store / "output"
        with output.open("w") as sink:
            process = subprocess.Popen(line, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environment})
            _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(output.read_text()[-3000:])
        return read_figures(output.read_text(), usage.ru_maxrss * 1024)


def read_figures(output: str, peak_rss: int) -> dict[str, float]:
    """Speed, memory and loss out of a run's protocol lines."""
    events = [event for line in output.splitlines() if (event := parse(line, NONCE))]
    speeds = [event.tokens_per_second for event in events if isinstance(event, ProgressEvent) and event.step > 2]
    result = next(event.train for event in reversed(events) if isinstance(event, ResultEvent))
    assert result is not None
    peak = re.search(r"peak_bytes=(\d+)", output)
    return {
        "tokens_per_second": statistics.median(speed for speed in speeds if speed),
        "peak_bytes": float(peak.group(1)) if peak else float(peak_rss),
        "holdout_loss": result.evaluation.tuned.loss,
    }


def main() -> None:
    """Run all candidates in turn and print medians and ratios to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="folder of a Codetune dataset")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    candidates: dict[str, Callable[[], dict[str, float]]] = {
        "Trainer + PEFT, fp32": partial(run_stock, options, bf16=False),
        "Trainer + PEFT, bf16": partial(run_stock, options, bf16=True),
        "Codetune": partial(run_codetune, options, {}),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for _ in range(options.runs):
        for name, candidate in candidates.items():
            found[name].append(candidate())
    keys = ("tokens_per_second", "holdout_loss", "peak_bytes")
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in keys} for name, runs in found.items()}
    first = next(iter(medians.values()))["tokens_per_second"]
    print("| candidate | tokens/s | ratio | peak GB | held-out loss |\n|---|---|---|---|---|")
    for name, row in medians.items():
        speed, peak = row["tokens_per_second"], row["peak_bytes"] / 1e9
        print(f"| {name} | {speed:.0f} | {speed / first:.2f} | {peak:.2f} | {row['holdout_loss']:.4f} |")


if __name__ == "__main__":
    main()
