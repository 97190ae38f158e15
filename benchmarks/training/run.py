"""Trains the same model on the same tokens with the peers and with Codetune, in turn, and prints a table of ratios.

Each candidate is one process that passes once over the same files; the others are stopped while one has its turn.
Real (non-padding) tokens per second from the end of the first step on, medians over `--runs` interleaved rounds; peak
memory of the process; and held-out loss afterwards, by one measure for all. The product of matrices that the machine
reaches is measured too, in the precision used: no step can be faster than that.
"""

import argparse
import json
import math
import re
import shutil
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
from codetune_api.protocol import ProgressEvent, parse
from subset import write_subset
from transformers import AutoConfig, AutoTokenizer
from turns import Turns, take_turns

NONCE = "benchmark-benchmark"
HERE = Path(__file__).resolve().parent
IMAGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What the trainer's image sets; the rest of Codetune's allocator settings it makes itself when it starts."""
POD = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""How its threads wait, as the operator tells every pod; on an otherwise idle machine no faster than the default."""
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


def stock(options: argparse.Namespace, folder: Path, *flags: str) -> Turns:
    """A peer."""
    line = [sys.executable, str(HERE / "stock.py"), "--model", options.model, "--dataset", str(folder / "dataset")]
    line += ["--output", str(folder / "adapter"), "--length", str(options.length), "--batch", str(options.batch)]
    pattern = re.compile(r"^trained on (\d+) tokens$", re.MULTILINE)
    return Turns([*line, *flags], SAME if options.same_allocator else {}, partial(_first_number, pattern))


def _first_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found.group(1)) if found else None


def codetune(options: argparse.Namespace, folder: Path, precision: str) -> Turns:
    """`python -m codetune_trainer train`, through its own contract."""
    (folder / "config.json").write_text(json.dumps(build_config(options, folder, precision).to_wire()))
    environment = {"CODETUNE_CONFIG": str(folder / "config.json"), "CODETUNE_STORE": str(folder)}
    environment |= {"CODETUNE_MODEL": str(Path(options.model).resolve()), "CODETUNE_SCRATCH": str(folder)}
    environment |= {"CODETUNE_TERMINATION_LOG": str(folder / "termination")}
    environment |= POD | (SAME if options.same_allocator else IMAGE)
    return Turns([sys.executable, "-m", "codetune_trainer", "train"], environment, _count_progress)


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


def find_adapter(folder: Path) -> Path:
    """What a candidate left."""
    checkpoints = list((folder / "run" / "checkpoints").glob("step-*"))
    return max(checkpoints) if checkpoints else folder / "adapter"


def measure_loss(options: argparse.Namespace, adapter: Path) -> float:
    """Held-out loss of a candidate's adapter."""
    line = [sys.executable, str(HERE / "holdout.py"), "--model", options.model, "--dataset", options.dataset]
    line += ["--adapter", str(adapter), "--length", str(options.length)]
    return float(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def measure_product(precision: str) -> float:
    """FLOP/s of one large product, the best of some."""
    line = [sys.executable, "-c", PRODUCT, precision]
    return float(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def flops_a_token(options: argparse.Namespace) -> float:
    """Of a step with a frozen base: 4 for each weight of a product, and attention below the diagonal, three times."""
    config = AutoConfig.from_pretrained(options.model)
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    narrow = width * config.num_key_value_heads // config.num_attention_heads
    weights = layers * (2 * width * width + 2 * width * narrow + 3 * width * inner) + width * config.vocab_size
    return float(4 * weights + 3 * 2 * options.length * width * layers)


CANDIDATES: dict[str, tuple[str, Callable[[argparse.Namespace, Path], Turns]]] = {
    "Trainer + PEFT, fp32": ("float32", stock),
    "Trainer + PEFT, bf16": ("bfloat16", lambda options, folder: stock(options, folder, "--bf16")),
    "TRL, packing": ("bfloat16", lambda options, folder: stock(options, folder, "--trl")),
    "Codetune, fp32": ("float32", partial(codetune, precision="Float32")),
    "Codetune, bf16": ("bfloat16", partial(codetune, precision="BFloat16")),
}
"""Precision of the products, and what starts it."""


def print_table(options: argparse.Namespace, found: dict[str, Turns], losses: dict[str, float]) -> None:
    """Medians; ratios of the last candidates to each of the peers."""
    products = {precision: measure_product(precision) for precision in {CANDIDATES[name][0] for name in found}}
    limits = {precision: product / flops_a_token(options) for precision, product in products.items()}
    speeds = {name: statistics.median(candidate.speeds) for name, candidate in found.items()}
    tokens = ", ".join(f"{candidate.tokens}" for candidate in found.values())
    print(f"\nLength {options.length}, batch {options.batch}, {options.runs} rounds, tokens: {tokens}.")
    for precision, product in sorted(products.items()):
        print(f"Products in {precision} reach {product / 1e9:.0f} GFLOP/s: {limits[precision]:.0f} tokens/s.")
    peers = [name for name in found if not name.startswith("Codetune")]
    print("\n| candidate | tokens/s | of the limit | peak GB | held-out loss |", end="")
    print("".join(f" to {name} | memory |" for name in peers))
    print((5 + 2 * len(peers)) * "|---" + "|")
    for name, candidate in found.items():
        share = speeds[name] / limits[CANDIDATES[name][0]]
        cells = [
            name,
            f"{speeds[name]:.0f}",
            f"{share:.0%}",
            f"{candidate.peak_bytes / 1e9:.2f}",
            f"{losses.get(name, math.nan):.4f}",
        ]
        for peer in peers:
            cells.append(f"{speeds[name] / speeds[peer]:.2f}")
            cells.append(f"{candidate.peak_bytes / found[peer].peak_bytes:.0%}")
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Run all candidates in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="folder of a Codetune dataset with held-out files")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--batch", type=int, default=4, help="sequences in a step")
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--steps", type=int, default=1, help="steps in a turn")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--same-allocator", action="store_true", help="one setting of malloc for all candidates")
    parser.add_argument("--keep", type=Path, help="put the adapters here, for holdout.py, instead of measuring losses")
    parser.add_argument("--only", default="", help="candidates whose name matches this pattern")
    options = parser.parse_args()
    names = [name for name in CANDIDATES if re.search(options.only, name)]
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    turn = options.steps * options.batch * options.length
    with tempfile.TemporaryDirectory() as place:
        found = {}
        for index, name in enumerate(names):
            folder = Path(place) / str(index)
            folder.mkdir()
            # A step more than is measured, and one for what turns take too much.
            asked = turn * options.runs + 2 * options.batch * options.length
            options.found = write_subset(Path(options.dataset), folder / "dataset", tokenizer, asked)
            found[name] = CANDIDATES[name][1](options, folder)
        # Half a step less: not all steps are full of real tokens.
        take_turns(list(found.values()), options.runs, turn - options.batch * options.length // 2)
        for name, candidate in found.items():
            speeds = ", ".join(f"{speed:.0f}" for speed in candidate.speeds)
            print(f"{name}: {speeds} tokens/s, {candidate.peak_bytes / 1e9:.2f} GB", flush=True)
        adapters = {name: find_adapter(Path(place) / str(at)) for at, name in enumerate(names)}
        if options.keep is not None:
            for name, adapter in adapters.items():
                shutil.copytree(adapter, options.keep / re.sub("[^A-Za-z0-9]+", "-", name), dirs_exist_ok=True)
        losses = {} if options.keep is not None else {name: measure_loss(options, adapters[name]) for name in names}
    print_table(options, found, losses)


if __name__ == "__main__":
    main()
