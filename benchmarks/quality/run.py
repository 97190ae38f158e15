"""Scans an installed package and trains on it through the real contracts; prints what held-out files say of the result.

The scan and the training are the programs of the trainer's image, as a Job runs them, each a process of its own.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from codetune_api.contracts import RunConfig, ScanConfig, ScanResult, TrainConfig, TrainResult
from codetune_api.finetune import Checkpoints, LoraOverrides, TrainingOverrides
from codetune_api.project import FileRules, Holdout, Source, VolumeSource
from codetune_api.protocol import ProgressEvent, ResultEvent, parse

NONCE = "benchmark-benchmark"
NAME = "code"


def run(stage: str, config: RunConfig, folder: Path, model: Path) -> ResultEvent:
    """One program of the image to its end, with its progress on the terminal. Raises: RuntimeError."""
    (folder / "config.json").write_text(json.dumps(config.to_wire()))
    places = {"CONFIG": folder / "config.json", "STORE": folder, "SCRATCH": folder / "scratch", "MODEL": model}
    places |= {"VOLUMES": folder / "volumes", "TERMINATION_LOG": folder / "termination"}
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}  # as the operator sets them
    environment |= {f"CODETUNE_{name}": str(path) for name, path in places.items()}
    line = [sys.executable, "-m", "codetune_trainer", stage]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        result = None
        for text in process.stdout:
            event = parse(text, NONCE)
            if isinstance(event, ProgressEvent) and event.step:
                print(f"step {event.step} of {event.total}, loss {event.loss}", flush=True)
            result = event if isinstance(event, ResultEvent) else result
    if process.returncode or result is None:
        raise RuntimeError(f"{stage} failed: {(folder / 'termination').read_text()}")
    return result


def find_sources(options: argparse.Namespace) -> Path:
    """The folder of code that is trained on."""
    if options.sources is not None:
        return Path(options.sources)
    found = importlib.util.find_spec(options.package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"--package {options.package}: no package of that name is installed")
    return Path(found.submodule_search_locations[0])


def scan(options: argparse.Namespace) -> ScanResult:
    """The dataset of a folder of sources, as a volume source with the default rules."""
    folder, code = options.folder, find_sources(options)
    for path in filter(Path.is_file, code.rglob(options.only)):
        target = folder / "volumes" / NAME / path.relative_to(code)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    source = Source(name=NAME, volume=VolumeSource(claim_name="none"))
    config = ScanConfig(
        nonce=NONCE,
        namespace="benchmark",
        name=NAME,
        sources=[source],
        files=FileRules(),
        holdout=Holdout(fraction=options.holdout),
        output="projects",
        cache="projects/sources",
    )
    result = run("scan", config, folder, options.model).scan
    assert result is not None
    return result


def train(options: argparse.Namespace, dataset: ScanResult, folder: Path) -> TrainResult:
    """One run of the preset Smaller, with FineTune's defaults but for its size and its rate."""
    config = TrainConfig(
        nonce=NONCE,
        namespace="benchmark",
        name=NAME,
        dataset=dataset.uri,
        dataset_revision=dataset.revision,
        output="run",
        base_model="file:///model",
        device=options.device,
        gpus=int(options.device == "cuda"),
        preset="Smaller",
        lora=LoraOverrides(),
        training=TrainingOverrides(
            max_steps=options.steps, batch_tokens=options.batch_tokens, learning_rate=options.rate
        ),
        checkpoints=Checkpoints(),
    )
    result = run("train", config, folder, options.model).train
    assert result is not None
    return result


def main() -> None:
    """Scan, train, and print the evaluation as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--package", default="peft", help="an installed package of several files")
    parser.add_argument("--sources", type=Path, help="a folder of code, instead of a package")
    parser.add_argument("--only", default="*", help="the files to take, by a pattern of their names")
    parser.add_argument("--holdout", type=float, default=0.1, help="share of the files that is held out")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for dataset and run")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    (options.folder / "scratch").mkdir(parents=True)
    dataset = scan(options)
    print(f"{dataset.files.accepted} files of {dataset.files.total}, {dataset.files.held_out} held out", flush=True)
    began = time.monotonic()
    result = train(options, dataset, options.folder)
    print(f"{time.monotonic() - began:.0f} s")
    assert result.evaluation is not None
    print(json.dumps(result.evaluation.to_wire(), indent=1))
    folder = options.folder
    print(f"More: --dataset {folder / dataset.uri} --adapter {folder / 'run' / 'checkpoints' / result.best_checkpoint}")


if __name__ == "__main__":
    main()
