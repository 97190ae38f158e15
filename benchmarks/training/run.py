"""Trains the same model on the same tokens with the peers and with Codetune, in turn, and prints a table of ratios.

Each run is a process of its own and passes once over the same files. Real (non-padding) tokens per second over the
steps after the first, peak memory of the process (or of the GPU), and held-out loss afterwards, by one measure for all.
Medians over `--runs` interleaved rounds. Each round also measures the product of matrices that the machine reaches at
that moment, so that a busy machine shows.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from codetune_api.contracts import DatasetManifest, TrainConfig
from codetune_api.finetune import Checkpoints, LoraOverrides, TrainingOverrides
from subset import write_subset
from transformers import AutoConfig, AutoTokenizer

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


def run_process(line: Sequence[str], environment: dict[str, str]) -> tuple[str, int]:
    """Run a program to its end; returns what it printed and its peak memory in bytes. Raises: RuntimeError."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        output.seek(0)
        text = output.read()
    if status:
        raise RuntimeError(f"{' '.join(line)} failed:\n{text[-3000:]}")
    return text, usage.ru_maxrss * 1024


def run_stock(options: argparse.Namespace, folder: Path, *flags: str) -> dict[str, Any]:
    """One run of a peer."""
    adapter = folder / "adapter"
    line = [sys.executable, str(HERE / "stock.py"), "--model", options.model, "--dataset", str(folder / "dataset")]
    line += ["--output", str(adapter), "--length", str(options.length), "--batch", str(options.batch), *flags]
    output, peak = run_process(line, SAME if options.same_allocator else {})
    found = json.loads(next(row for row in reversed(output.splitlines()) if row.startswith("{")))
    return {"peak_bytes": peak, **found, "adapter": adapter}


def run_codetune(options: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    """One run of `python -m codetune_trainer train`, through its own contract."""
    (folder / "config.json").write_text(json.dumps(build_config(options, folder, precision).to_wire()))
    environment = {"CODETUNE_CONFIG": str(folder / "config.json"), "CODETUNE_STORE": str(folder)}
    environment |= {"CODETUNE_MODEL": str(Path(options.model).resolve()), "CODETUNE_SCRATCH": str(folder)}
    environment |= {"CODETUNE_TERMINATION_LOG": str(folder / "termination")}
    environment |= SAME if options.same_allocator else IMAGE
    output, peak = run_process([sys.executable, "-m", "codetune_trainer", "train"], environment)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["tokensPerSecond"] for row in rows if "tokensPerSecond" in row]
    start = re.search(r"first step ended ([\d.]+) s", output)
    return {
        "tokens_per_second": statistics.harmonic_mean(speeds[1:]),
        "peak_bytes": peak,
        "start": float(start.group(1)) if start else 0.0,
        "adapter": max((folder / "run" / "checkpoints").glob("step-*")),
    }


def build_config(options: argparse.Namespace, folder: Path, precision: str) -> TrainConfig:
    """The peers' settings as a run's configuration: one epoch, their schedule."""
    manifest = DatasetManifest.model_validate_json((folder / "dataset" / "manifest.json").read_text())
    steps = max(2, round(options.found / (options.batch * options.length)))
    training: dict[str, Any] = {"max_steps": steps, "scheduler": "Linear", "warmup_steps": 0, "weight_decay": 0}
    training |= {"sequence_length": options.length, "batch_tokens": options.batch * options.length}
    training |= {"learning_rate": 3e-4, "fim_rate": 0, "precision": precision}
    return TrainConfig(
        nonce="benchmark-benchmark",
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
    output, _ = run_process([*line, "--adapter", str(adapter), "--length", str(options.length)], {})
    return float(output.splitlines()[-1])


def flops_a_token(options: argparse.Namespace) -> float:
    """Of a step with a frozen base: 4 for each weight of a product, and attention below the diagonal, three times."""
    config = AutoConfig.from_pretrained(options.model)
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    narrow = width * config.num_key_value_heads // config.num_attention_heads
    weights = layers * (2 * width * width + 2 * width * narrow + 3 * width * inner) + width * config.vocab_size
    return float(4 * weights + 3 * 2 * options.length * width * layers)


def choose_candidates(options: argparse.Namespace) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """By name; the first is what the ratios are of."""
    found: dict[str, Callable[[Path], dict[str, Any]]] = {
        "Trainer + PEFT, fp32": lambda folder: run_stock(options, folder),
        "TRL packing, fp32": lambda folder: run_stock(options, folder, "--trl"),
        "Codetune, fp32": partial(run_codetune, options, precision="Float32"),
    }
    if options.bf16:
        found["Trainer + PEFT, bf16"] = lambda folder: run_stock(options, folder, "--bf16")
        found["TRL packing, bf16"] = lambda folder: run_stock(options, folder, "--trl", "--bf16")
        found["Codetune, bf16"] = partial(run_codetune, options, precision="BFloat16")
    return {name: run for name, run in found.items() if re.search(options.only, name)}


def print_table(options: argparse.Namespace, found: dict[str, list[dict[str, Any]]], product: float) -> None:
    """Medians and ratios."""
    limit = product / flops_a_token(options)
    print(f"\n{options.found} tokens a run, length {options.length}, batch {options.batch}, {options.runs} rounds;")
    print(f"products reach {product / 1e9:.0f} GFLOP/s, which is {limit:.0f} tokens/s.\n")
    print("| candidate | tokens/s | ratio | of the limit | peak GB | ratio | held-out loss |\n" + 7 * "|---" + "|")
    first: dict[str, float] = {}
    for name, runs in found.items():
        row = {key: statistics.median(run[key] for run in runs) for key in ("tokens_per_second", "peak_bytes", "loss")}
        first = first or row
        speed, peak = row["tokens_per_second"], row["peak_bytes"]
        text = f"| {name} | {speed:.0f} | {speed / first['tokens_per_second']:.2f} | {speed / limit:.0%} "
        print(f"{text}| {peak / 1e9:.2f} | {peak / first['peak_bytes']:.2f} | {row['loss']:.4f} |")


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
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in candidates}
    products: list[float] = []
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    for _ in range(options.runs):
        for name, candidate in candidates.items():
            products.append(float(run_process([sys.executable, "-c", PRODUCT, "float32"], {})[0]))
            with tempfile.TemporaryDirectory() as folder:
                options.found = write_subset(Path(options.dataset), Path(folder) / "dataset", tokenizer, options.tokens)
                figures = candidate(Path(folder))
                # Deterministic: once is enough.
                figures["loss"] = (
                    found[name][0]["loss"] if found[name] else measure_loss(options, figures.pop("adapter"))
                )
            found[name].append(figures)
            print(name, json.dumps(figures, default=str), f"{products[-1] / 1e9:.0f} GFLOP/s", flush=True)
    print_table(options, found, max(products))


if __name__ == "__main__":
    main()
