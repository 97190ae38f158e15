"""Trains the same model on the same tokens with the peers and with Codetune, in turn, and prints a table of ratios.

Each run is a process of its own and passes once over the same files. Real (non-padding) tokens from the end of the
first step to that of the last, by the wall clock and per second that the threads computed, which a busy machine
disturbs less; peak memory of the process; and held-out loss afterwards, by one measure for all. Medians over `--runs`
interleaved rounds. Each run also measures the product of matrices that the machine reaches at that moment.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from codetune_api.contracts import DatasetManifest, TrainConfig
from codetune_api.finetune import Checkpoints, LoraOverrides, TrainingOverrides
from codetune_api.protocol import ProgressEvent, parse
from subset import write_subset
from transformers import AutoConfig, AutoTokenizer

NONCE = "benchmark-benchmark"
HERE = Path(__file__).resolve().parent
IMAGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What the trainer's image sets; the rest of Codetune's allocator settings it makes itself when it starts."""
SAME = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=274877906944"}
"""The same for every candidate, where --same-allocator is given."""
PRODUCT = """
import sys, time, torch
a, b = (torch.randn(2048, n, dtype=getattr(torch, sys.argv[1])) for n in (576, 1536))
b, times = b[:576].clone(), []
for _ in range(12):
    began = time.perf_counter()
    a @ b
    times.append(time.perf_counter() - began)
print(2 * 2048 * 576 * 1536 / min(times))
"""


@dataclass
class Observed:
    """A process that ended, and where it was when it said how many tokens it had trained on."""

    output: str = ""
    peak_bytes: int = 0
    marks: list[tuple[int, float, float]] = field(default_factory=list)
    """(tokens, seconds by the wall clock, seconds of its threads)."""

    def speed(self, clock: int) -> float:
        """Tokens per second of a clock (1: wall, 2: threads) from the end of the first step to that of the last."""
        first, last = self.marks[0], self.marks[-1]
        return (last[0] - first[0]) / (last[clock] - first[clock])


def observe(line: Sequence[str], environment: dict[str, str], count: Callable[[str], int | None]) -> Observed:
    """Run a program to its end; `count` reads the tokens so far out of a line. Raises: RuntimeError."""
    found = Observed()
    # Threads that wait must not count as working.
    settings = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings)
    assert process.stdout is not None
    for text in process.stdout:
        found.output += text
        if (tokens := count(text)) is not None:
            found.marks.append((tokens, time.monotonic(), _work(process.pid)))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise RuntimeError(f"{' '.join(line)} failed:\n{found.output[-3000:]}")
    found.peak_bytes = usage.ru_maxrss * 1024
    return found


def _work(process: int) -> float:
    """Seconds that the threads of a process have computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_stock(options: argparse.Namespace, folder: Path, *flags: str) -> tuple[Observed, Path]:
    """One run of a peer, and its adapter."""
    adapter = folder / "adapter"
    line = [sys.executable, str(HERE / "stock.py"), "--model", options.model, "--dataset", str(folder / "dataset")]
    line += ["--output", str(adapter), "--length", str(options.length), "--batch", str(options.batch), *flags]
    pattern = re.compile(r"^trained on (\d+) tokens$", re.MULTILINE)
    return observe(line, SAME if options.same_allocator else {}, partial(_first_number, pattern)), adapter


def _first_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found.group(1)) if found else None


def run_codetune(options: argparse.Namespace, folder: Path, precision: str) -> tuple[Observed, Path]:
    """One run of `python -m codetune_trainer train`, through its own contract, and its adapter."""
    (folder / "config.json").write_text(json.dumps(build_config(options, folder, precision).to_wire()))
    environment = {"CODETUNE_CONFIG": str(folder / "config.json"), "CODETUNE_STORE": str(folder)}
    environment |= {"CODETUNE_MODEL": str(Path(options.model).resolve()), "CODETUNE_SCRATCH": str(folder)}
    environment |= {"CODETUNE_TERMINATION_LOG": str(folder / "termination")}
    environment |= SAME if options.same_allocator else IMAGE
    line = [sys.executable, "-m", "codetune_trainer", "train"]
    found = observe(line, environment, _count_progress)
    return found, max((folder / "run" / "checkpoints").glob("step-*"))


def _count_progress(text: str) -> int | None:
    event = parse(text, NONCE)
    return event.tokens if isinstance(event, ProgressEvent) and event.step else None


def build_config(options: argparse.Namespace, folder: Path, precision: str) -> TrainConfig:
    """The peers' settings as a run's configuration: one epoch, their schedule."""
    manifest = DatasetManifest.model_validate_json((folder / "dataset" / "manifest.json").read_text())
    steps = max(2, round(options.found / (options.batch * options.length)))
    training: dict[str, Any] = {"max_steps": steps, "scheduler": "Linear", "warmup_steps": 0, "weight_decay": 0}
    training |= {"sequence_length": options.length, "batch_tokens": options.batch * options.length}
    training |= {"learning_rate": 3e-4, "fim_rate": 0, "precision": precision}
    return TrainConfig(
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
        training=TrainingOverrides(**training),
        checkpoints=Checkpoints(every_steps=steps),
    )


def measure_loss(options: argparse.Namespace, adapter: Path) -> float:
    """Held-out loss of a candidate's adapter."""
    line = [sys.executable, str(HERE / "holdout.py"), "--model", options.model, "--dataset", options.dataset]
    line += ["--adapter", str(adapter), "--length", str(options.length)]
    return float(observe(line, {}, lambda _: None).output.splitlines()[-1])


def flops_a_token(options: argparse.Namespace) -> float:
    """Of a step with a frozen base: 4 for each weight of a product, and attention below the diagonal, three times."""
    config = AutoConfig.from_pretrained(options.model)
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    narrow = width * config.num_key_value_heads // config.num_attention_heads
    weights = layers * (2 * width * width + 2 * width * narrow + 3 * width * inner) + width * config.vocab_size
    return float(4 * weights + 3 * 2 * options.length * width * layers)


def choose_candidates(options: argparse.Namespace) -> dict[str, Callable[[Path], tuple[Observed, Path]]]:
    """By name; the first is what the ratios are of."""
    found: dict[str, Callable[[Path], tuple[Observed, Path]]] = {
        "Trainer + PEFT, fp32": lambda folder: run_stock(options, folder),
        "TRL packing, fp32": lambda folder: run_stock(options, folder, "--trl"),
        "Codetune, fp32": partial(run_codetune, options, precision="Float32"),
    }
    if options.bf16:
        found["Trainer + PEFT, bf16"] = lambda folder: run_stock(options, folder, "--bf16")
        found["TRL packing, bf16"] = lambda folder: run_stock(options, folder, "--trl", "--bf16")
        found["Codetune, bf16"] = partial(run_codetune, options, precision="BFloat16")
    return {name: run for name, run in found.items() if re.search(options.only, name)}


@dataclass
class Figures:
    """What was measured of one candidate."""

    runs: list[Observed] = field(default_factory=list)
    loss: float = 0.0

    def median(self, figure: Callable[[Observed], float]) -> float:
        """Of all its runs."""
        return statistics.median(map(figure, self.runs))


def print_table(options: argparse.Namespace, found: dict[str, Figures], product: float) -> None:
    """Medians and ratios to the first."""
    limit = product / flops_a_token(options)
    print(f"\n{options.found} tokens a run, length {options.length}, batch {options.batch}, {options.runs} rounds;")
    print(f"products reach {product / 1e9:.0f} GFLOP/s, which is {limit:.0f} tokens/s.\n")
    print("| candidate | tokens/s | ratio | per second of a core | ratio | peak GB | ratio | held-out loss |")
    print(8 * "|---" + "|")
    first = next(iter(found.values()))
    for name, figures in found.items():
        cells = [name]
        for figure in (lambda run: run.speed(1), lambda run: run.speed(2), lambda run: run.peak_bytes / 1e9):
            value, other = figures.median(figure), first.median(figure)
            cells += [f"{value:.1f}" if value > 10 else f"{value:.2f}", f"{value / other:.2f}"]
        print(f"| {' | '.join(cells)} | {figures.loss:.4f} |")


def main() -> None:
    """Run all candidates in turn and print medians and ratios to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="folder of a Codetune dataset with held-out files")
    parser.add_argument("--tokens", type=int, default=12_000, help="about so many tokens a run")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--bf16", action="store_true", help="also in bf16, which not every CPU computes in itself")
    parser.add_argument("--same-allocator", action="store_true", help="one setting of malloc for all candidates")
    parser.add_argument("--only", default="", help="candidates whose name matches this pattern")
    options = parser.parse_args()
    candidates = choose_candidates(options)
    found = {name: Figures() for name in candidates}
    products: list[float] = []
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    for _ in range(options.runs):
        for name, candidate in candidates.items():
            products.append(float(observe([sys.executable, "-c", PRODUCT, "float32"], {}, lambda _: None).output))
            with tempfile.TemporaryDirectory() as folder:
                options.found = write_subset(Path(options.dataset), Path(folder) / "dataset", tokenizer, options.tokens)
                run, adapter = candidate(Path(folder))
                found[name].loss = found[name].loss or measure_loss(options, adapter)  # the same every time
            found[name].runs.append(run)
            speeds = f"{run.speed(1):.1f} tokens/s, {run.speed(2):.1f} a second of a core"
            print(f"{name}: {speeds}, {run.peak_bytes / 1e9:.2f} GB, {products[-1] / 1e9:.0f} GFLOP/s", flush=True)
    print_table(options, found, max(products))


if __name__ == "__main__":
    main()
