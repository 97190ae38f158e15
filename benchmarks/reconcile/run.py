"""From the answer to `create` to the Job's appearance in a watch: a FineTune, and a bare kopf handler, in turn.

Both operators are processes beside a local cluster. The Jobs select a node that does not exist, so that nothing but
the operators works. First one object after the other, then many at once.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "hack"))

from demo_repository import make_repository  # noqa: E402  beside the demo, which is no package
from kubernetes import client, config, watch  # noqa: E402
from laptop import Laptop  # noqa: E402
from urllib3.exceptions import ProtocolError  # noqa: E402

NAMESPACE = "default"
PATIENCE_SECONDS = 120.0
PROJECT = {"sources": [{"name": "code", "git": {"url": "file:///code.git"}}]}
NOWHERE = {"nodeSelector": {"benchmark": "nowhere"}}


class Watcher(threading.Thread):
    """Notes when each Job appears, by the name of the object that owns it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._seen: dict[str, float] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        """Watch until the process ends."""
        jobs = client.BatchV1Api().list_namespaced_job
        with contextlib.suppress(ProtocolError):  # the cluster stops at the end
            for event in watch.Watch().stream(jobs, NAMESPACE):
                owners = event["object"].metadata.owner_references or []
                with self._changed:
                    self._seen.update(
                        {owner.name: time.monotonic() for owner in owners if owner.name not in self._seen}
                    )
                    self._changed.notify_all()

    def wait_for(self, name: str) -> float:
        """When its Job appeared, by the monotonic clock. Raises: RuntimeError."""
        with self._changed:
            if not self._changed.wait_for(lambda: name in self._seen, PATIENCE_SECONDS):
                raise RuntimeError(f"{name} has no Job after {PATIENCE_SECONDS:.0f} s")
            return self._seen[name]


def create_fine_tune(name: str) -> None:
    """A FineTune of the Project that is there."""
    spec = {"projectRef": {"name": "code"}, "baseModel": "file:///model", "resources": {"gpus": 0}}
    body = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}}
    body["spec"] = spec | {"scheduling": NOWHERE}
    client.CustomObjectsApi().create_namespaced_custom_object("codetune.dev", "v1alpha1", NAMESPACE, "finetunes", body)


def create_config_map(name: str) -> None:
    """What the peer makes a Job of."""
    client.CoreV1Api().create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": name, "labels": {"benchmark": "peer"}}}
    )


CANDIDATES: dict[str, Callable[[str], None]] = {"kopf, bare": create_config_map, "Codetune": create_fine_tune}


def measure(watcher: Watcher, runs: int, burst: int) -> dict[str, tuple[list[float], float]]:
    """For each candidate the seconds of each single object, and from the first of a burst to the last Job."""
    single: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for number in range(runs):
        for index, (candidate, create) in enumerate(CANDIDATES.items()):
            name = f"single-{index}-{number}"
            create(name)
            began = time.monotonic()
            single[candidate].append(watcher.wait_for(name) - began)
    together: dict[str, float] = {}
    for index, (candidate, create) in enumerate(CANDIDATES.items()):
        names = [f"burst-{index}-{number}" for number in range(burst)]
        began = time.monotonic()
        for name in names:
            create(name)
        together[candidate] = max(watcher.wait_for(name) for name in names) - began
    return {candidate: (single[candidate], together[candidate]) for candidate in CANDIDATES}


def start(folder: Path) -> tuple[Laptop, "subprocess.Popen[bytes]"]:
    """Cluster, operator, a Project with data, and the peer."""
    files = folder / "files"
    make_repository("kopf", files / "code.git")
    laptop = Laptop(folder)
    laptop.start_cluster()
    laptop.start_operator(laptop.install({"settings": {"fileRoot": str(files)}}))
    config.load_kube_config(str(laptop.kubeconfig))
    body: dict[str, Any] = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "code"}}
    objects = client.CustomObjectsApi()
    objects.create_namespaced_custom_object("codetune.dev", "v1alpha1", NAMESPACE, "projects", body | {"spec": PROJECT})
    laptop.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "project/code")
    line = [sys.executable, "-m", "kopf", "run", "--quiet", "--namespace", NAMESPACE, str(HERE / "peer.py")]
    peer = subprocess.Popen(line, env={**os.environ, "KUBECONFIG": str(laptop.kubeconfig)})
    return laptop, peer


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--burst", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        laptop, peer = start(Path(folder))
        try:
            watcher = Watcher()
            watcher.start()
            create_config_map("warm")
            watcher.wait_for("warm")
            found = measure(watcher, options.runs, options.burst)
        finally:
            peer.terminate()
            peer.wait()
            laptop.stop()
    print(f"| operator | p50 ms | p95 ms | {options.burst} at once, s |\n|---|---|---|---|")
    for candidate, (single, together) in found.items():
        p95 = statistics.quantiles(single, n=20)[-1]
        print(f"| {candidate} | {1000 * statistics.median(single):.0f} | {1000 * p95:.0f} | {together:.2f} |")


if __name__ == "__main__":
    main()
