"""Serving, measured: swaps under load on two replicas, and what the middleware costs against bare vLLM in the same run;
beside that what a team's gateway computes.

    nice python benchmarks/serving/run.py --swaps 50

Without `--model` the end-to-end tests' tiny random model is used: it answers so fast that the middleware's share is as
large as it can be. Each server computes with one thread. Prints a table in Markdown.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from fleet import START, VERSIONS
from gateway_cost import measure_gateway
from load import PROMPT, TOKENS, Load, Timeline, ask
from middleware_cost import measure_middleware
from oracle import listen
from pairs import measure_latency
from replicas import BASE_URI, Replica, desire, free_port, make_replica, one_thread
from swaps import tell_swaps
from tiny import make_adapter, make_model

ARGUMENTS = ["--max-model-len", "256", "--max-loras", "4", "--max-lora-rank", "16", "--max-cpu-loras", "16"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; returns the exit status: 1 when a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of the base model (default: a tiny random Llama)")
    parser.add_argument("--swaps", type=int, default=50, help="changes under load (50)")
    parser.add_argument("--clients", type=int, default=8, help="streaming clients (8)")
    parser.add_argument("--pairs", type=int, default=800, help="pairs of requests for the latency (800)")
    parser.add_argument("--streams", type=int, default=60, help="pairs of streams for the latency (60)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), options)


def run(root: Path, options: argparse.Namespace) -> int:
    """Start the servers, measure, stop them; returns the exit status."""
    model = options.model or make_model(root / "model")
    for seed, version in enumerate(VERSIONS):
        make_adapter(model, root / "store" / version, seed=seed, base_model=BASE_URI)
    servers = [make_replica(root, name, model, ARGUMENTS) for name in ("first", "second")]
    servers.append(make_stock(root, model))
    for server in servers[:2]:
        server.remember(desire(root / "store", START))
    for server in servers:
        server.start()
    try:
        for server in servers:
            server.wait_until_ready()
        print("| what | measured |\n|---|---|")
        show(measure_middleware())
        show(measure_gateway())
        show(asyncio.run(measure_latency(*servers, options.pairs, options.streams)))
        servers.pop().stop()
        expected = {version: listen(model, root / "store" / version, PROMPT, TOKENS) for version in VERSIONS}
        load = Load([server.url for server in servers[:2]], sorted(START), expected, Timeline.start(START))
        show(asyncio.run(measure_swaps(servers, load, root / "store", options)))
    finally:
        for server in servers:
            server.stop()
    for fault in load.tally.faults[:10]:
        print(fault, file=sys.stderr)
    return 1 if load.tally.faults else 0


def show(rows: Sequence[tuple[str, str]]) -> None:
    """Rows of the table, at once: a run that is cut off has told something."""
    for what, figure in rows:
        print(f"| {what} | {figure} |", flush=True)


def make_stock(root: Path, model: Path) -> Replica:
    """Bare vLLM with the same adapters from its start on, the same options, and threads that wait in the same way."""
    (root / "stock").mkdir()
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)),
        *("--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager", "--enable-lora", *ARGUMENTS),
        *("--lora-modules", *(f"{name}={root / 'store' / version}" for name, version in START.items())),
    ]
    environment = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_WAIT_POLICY": "PASSIVE", **one_thread()}
    return Replica(root / "stock", command, port, environment=environment)


async def measure_swaps(
    servers: Sequence[Replica], load: Load, store: Path, options: argparse.Namespace
) -> list[tuple[str, str]]:
    """The story of changes, first without other requests and then under load; every answer is checked."""
    idle = [await swap(servers, load, store, {**START, "a": version}, START) for version in VERSIONS[4:]]
    await swap(servers, load, store, START, {**START, "a": VERSIONS[-1]})
    busy, current = [], dict(START)
    async with load.run(options.clients):
        for _, versions in tell_swaps(START, VERSIONS, options.swaps, seed=1):
            busy.append(await swap(servers, load, store, versions, current))
            await load.see(options.clients)
            current = versions
    tally = load.tally
    return [
        (f"from PUT to the first answer on both replicas, idle ({len(idle)} swaps)", say_times(idle)),
        (f"the same under load of {options.clients} streaming clients ({len(busy)} changes)", say_times(busy)),
        ("answers checked meanwhile", f"{tally.answers}, of which {tally.absent} rightly 404"),
        ("failed, cut off, of another or of mixed versions", str(len(tally.faults))),
    ]


async def swap(
    servers: Sequence[Replica], load: Load, store: Path, after: dict[str, str], before: dict[str, str]
) -> float:
    """One change; seconds until every replica has answered with it."""
    desired = desire(store, after)
    changed = next((name for name in after if after[name] != before.get(name)), "a")
    load.timeline.change(before, after)
    start = time.perf_counter()
    await asyncio.gather(*(asyncio.to_thread(server.tell, desired) for server in servers))
    load.timeline.settle(after)
    async with httpx.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(ask(client, server.url, changed, 1) for server in servers))
    return time.perf_counter() - start


def say_times(seconds: list[float]) -> str:
    """Median, 95th percentile and maximum."""
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"p50 {statistics.median(ordered):.2f} s, p95 {late:.2f} s, longest {ordered[-1]:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
