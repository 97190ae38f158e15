"""How fast a scan is: against only reading, hashing and decoding every file, and against `cloc`, in one run.

    python benchmarks/scan/run.py [--files 62000] [--processes 2] [--rounds 3] [--folder DIR]

Everything reads the same tree from the page cache, with the same number of processes; rounds are interleaved, and what
is reported is each one's median. `cloc` is Debian's package of that name.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the trainer's image starts a scan; numpy reads it when it is imported

from codetune_api.contracts import ScanConfig, ScanResult
from codetune_trainer.config import Places
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.recipe import scan
from tree import build_tree

CHEAP = {"nearDuplicates": "Ignore", "secrets": "Allow"}
"""Types, generated, vendored, minified, digits, exact duplicates."""
EVERYTHING = {"licenses": {"allow": ["MIT", "Apache-2.0", "BSD-3-Clause", "PSF-2.0", "Unknown"]}}
"""Near duplicates and secrets are on by default; licences are when some are named."""
_CHANGED_SHARE = 100
_BATCH = 256
_LOOK_SECONDS = 0.1


def main() -> int:
    """Measure, print a table."""
    options = _parse()
    if options.memory_of:
        run_scan(options.folder, options.folder / f"tree-{options.memory_of}", EVERYTHING, options.processes)
        return 0
    tree = options.folder / "tree"
    files, size = build_tree(tree, options.files)
    print(f"{files} files, {size / 1e6:.0f} MB, {options.processes} processes, median of {options.rounds} rounds\n")
    read_all(tree, options.processes)
    jobs: dict[str, Callable[[], float]] = {
        "read, hash, decode": lambda: read_all(tree, options.processes),
        "scan, cheap rules": lambda: first_scan(options, tree, CHEAP),
        "scan, all rules": lambda: first_scan(options, tree, EVERYTHING),
        "rescan, 1 % changed": lambda: rescan(options, tree, EVERYTHING),
        "cloc": lambda: count_lines(tree, options.processes),
    }
    if not shutil.which("cloc"):
        print("cloc is not installed (apt-get install cloc): left out", file=sys.stderr)
        del jobs["cloc"]
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            taken[name].append(job())
    _report(files, {name: statistics.median(seconds) for name, seconds in taken.items()})
    for factor in (1, 4):
        print(f"peak memory at {files * factor} files: {measure_memory(options, factor)} MB")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=62_000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(".codetune/benchmarks/scan"))
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _report(files: int, seconds: dict[str, float]) -> None:
    print(f"{'what':<24}{'seconds':>9}{'files/s':>10}")
    for name, value in seconds.items():
        print(f"{name:<24}{value:>9.2f}{files / value:>10.0f}")
    print()
    print(
        f"cheap rules / reading only: {seconds['read, hash, decode'] / seconds['scan, cheap rules']:.2f} of its speed"
    )
    if "cloc" in seconds:
        print(f"all rules / cloc: {seconds['cloc'] / seconds['scan, all rules']:.1f} times as fast")
    print(f"rescan / first scan: {seconds['rescan, 1 % changed'] / seconds['scan, all rules']:.1%} of its time")


def read_all(tree: Path, processes: int) -> float:
    """Seconds to list the tree and to read, hash and decode every file."""
    began = time.perf_counter()
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names]
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    with get_context("fork").Pool(processes) as pool:
        assert sum(pool.imap(_read, batches)) == len(paths)
    return time.perf_counter() - began


def _read(paths: list[str]) -> int:
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        hashlib.sha256(content).digest()
        content.decode(errors="replace")
    return len(paths)


def first_scan(options: argparse.Namespace, tree: Path, rules: dict[str, Any]) -> float:
    """Seconds of a scan that remembers nothing, from listing to the dataset on the disk."""
    shutil.rmtree(options.folder / "store", ignore_errors=True)
    return _scan(options, tree, rules)


def rescan(options: argparse.Namespace, tree: Path, rules: dict[str, Any]) -> float:
    """Seconds of the scan after one file in a hundred changed."""
    first_scan(options, tree, rules)
    for path in sorted(tree.rglob("*.*"))[::_CHANGED_SHARE]:
        if path.is_file() and path.name != ".complete":
            with path.open("ab") as file:
                file.write(b"\n# %d\n" % time.time_ns())
    return _scan(options, tree, rules)


def _scan(options: argparse.Namespace, tree: Path, rules: dict[str, Any]) -> float:
    began = time.perf_counter()
    run_scan(options.folder, tree, rules, options.processes)
    return time.perf_counter() - began


def run_scan(folder: Path, tree: Path, rules: dict[str, Any], processes: int | None) -> ScanResult:
    """The trainer's own scan of a volume."""
    volumes = folder / "volumes"
    volumes.mkdir(parents=True, exist_ok=True)
    mount = volumes / "tree"
    mount.unlink(missing_ok=True)
    mount.symlink_to(tree.resolve())
    config = ScanConfig.model_validate(
        {
            "nonce": "n" * 16,
            "namespace": "bench",
            "name": "bench",
            "sources": [{"name": "tree", "volume": {"claimName": "tree"}}],
            "files": rules,
            "holdout": {},
            "output": "bench/projects/bench",
            "cache": "bench/projects/bench/sources",
        }
    )
    places = Places(
        store=folder / "store", scratch=folder / "scratch", credentials=None, volumes=volumes, file_root=None
    )
    with open(os.devnull, "w") as nowhere:
        return scan(config, places, Reporter("n" * 16, nowhere), processes)


def count_lines(tree: Path, processes: int) -> float:
    """Seconds of cloc."""
    began = time.perf_counter()
    command = ["cloc", "--quiet", f"--processes={processes}", "--skip-uniqueness", str(tree)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def measure_memory(options: argparse.Namespace, factor: int) -> int:
    """Peak memory in MB of a scan with all rules, over its processes; what these share counts once, as in a pod."""
    build_tree(options.folder / f"tree-{factor}", options.files * factor)
    shutil.rmtree(options.folder / "store", ignore_errors=True)
    command = [sys.executable, __file__, "--folder", str(options.folder), "--memory-of", str(factor)]
    peak = 0
    with subprocess.Popen([*command, "--processes", str(options.processes)]) as process:
        while process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            peak = max(peak, sum(map(_held, [str(process.pid), *children])))
            time.sleep(_LOOK_SECONDS)
    if process.returncode:
        raise SystemExit(f"the scan of {factor} trees failed")
    return peak // 1024


def _held(process: str) -> int:
    """Memory of a process in KiB, its share of what it shares; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    sys.exit(main())
