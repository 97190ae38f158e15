"""From `Succeeded` in a FineTune's status to the first answer of its adapter on every replica.

    python benchmarks/serving/following.py --runs 10

Everything is as in a cluster: a Project, a ModelDeployment with an `adapterSelector`, and one FineTune after the other
that is trained, found by its labels and served without an edit. `minImprovement` is asked for, so that nothing is
served before the run has succeeded. Prints a table in Markdown.
"""

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from deployed import Deployed, Obj, make_code, make_deployment, make_finetune, make_project

RUN_SECONDS = 300.0
ANSWER_SECONDS = 60.0
SELECTOR = {"matchLabels": {"stage": "production"}, "minImprovement": -1}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="FineTunes, one after the other (10)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing stays behind
    with tempfile.TemporaryDirectory() as folder:
        deployed = Deployed.start(Path(folder))
        try:
            seconds = sorted(measure(deployed, options.runs))
        finally:
            deployed.stop()
    print("| what | measured |\n|---|---|")
    figure = f"p50 {statistics.median(seconds):.2f} s, longest {seconds[-1]:.2f} s"
    print(f"| from Succeeded to the first answer on both replicas ({len(seconds)} runs) | {figure} |")
    return 0


def measure(deployed: Deployed, runs: int) -> Iterator[float]:
    """Seconds of each run."""
    url = make_code(deployed.files / "shop")
    deployed.apply(make_project(url), make_deployment(adapterSelector=SELECTOR))
    deployed.wait_for_ready()
    for number in range(runs):
        yield follow(deployed, make_finetune(f"run-{number}", steps=4, every=4, stage="production"))


def follow(deployed: Deployed, finetune: Obj) -> float:
    """Train once; seconds from Succeeded until every replica has answered as this adapter."""
    name = finetune["metadata"]["name"]
    with watch_phases(deployed, name) as phases:
        deployed.apply(finetune)
        if "Succeeded" not in phases:
            raise RuntimeError(f"FineTune {name} did not succeed: {deployed.status('finetune', name)}")
        start = time.perf_counter()
    asyncio.run(hear(deployed.urls(), name))
    return time.perf_counter() - start


@contextmanager
def watch_phases(deployed: Deployed, name: str) -> Iterator[Iterator[str]]:
    """The phases of a FineTune, each as soon as it is told; they end with the run."""
    line = [
        "get",
        "finetune",
        "--watch",
        "--field-selector",
        f"metadata.name={name}",
        "-o",
        'jsonpath={.status}{"\\n"}',
    ]
    with subprocess.Popen(deployed.laptop.kubectl_command(*line), stdout=subprocess.PIPE, text=True) as watch:

        def phases() -> Iterator[str]:
            for text in watch.stdout or ():
                phase = json.loads(text).get("phase", "") if text.strip() else ""
                yield phase
                if phase in ("Succeeded", "Failed"):
                    return

        try:
            yield phases()
        finally:
            watch.kill()


async def hear(urls: Sequence[str], name: str) -> None:
    """Until each of these has answered as this model. Raises: TimeoutError."""
    async with asyncio.timeout(ANSWER_SECONDS), httpx.AsyncClient(timeout=30) as client:
        await asyncio.gather(*(_hear(client, url, name) for url in urls))


async def _hear(client: httpx.AsyncClient, url: str, name: str) -> None:
    body = {"model": name, "prompt": "def tax_1(value):\n", "max_tokens": 1, "temperature": 0}
    while (await client.post(f"{url}/v1/completions", json=body)).status_code != 200:
        await asyncio.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
