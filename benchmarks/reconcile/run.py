"""From the answer to `create` to the Job's appearance in a watch: a FineTune, and a bare kopf handler, in turn.

By default both operators are processes beside a local cluster. With `--kubeconfig`, Codetune is the one that runs in
that cluster, where `--namespace` has the Project `--project` with data, and `--model` is a base model; bare kopf is a
process here all the same. The Jobs select a node that does not exist, so that nothing but the operators works. First
one object after the other, then many at once.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "hack"))

from demo_repository import make_repository  # noqa: E402  beside the demo, which is no package
from kubernetes import client, config, watch  # noqa: E402
from laptop import Laptop  # noqa: E402
from urllib3.exceptions import ProtocolError  # noqa: E402

PATIENCE_SECONDS = 120.0
PROJECT = {"sources": [{"name": "code", "git": {"url": "file:///code.git"}}]}
KIND = ("codetune.dev", "v1alpha1")
LABELS = {"benchmark": "peer"}
NOWHERE = {"nodeSelector": {"benchmark": "nowhere"}}


@dataclass(frozen=True)
class Place:
    """Where objects are made, and of what."""

    kubeconfig: Path
    namespace: str
    project: str
    model: str

    def create_fine_tune(self, name: str) -> None:
        """A FineTune of the Project that is there."""
        spec = {"projectRef": {"name": self.project}, "baseModel": self.model, "resources": {"gpus": 0, "cpu": "100m"}}
        body = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune"}
        body |= {"metadata": {"name": name, "labels": LABELS}, "spec": spec | {"scheduling": NOWHERE}}
        client.CustomObjectsApi().create_namespaced_custom_object(*KIND, self.namespace, "finetunes", body)

    def create_config_map(self, name: str) -> None:
        """What the peer makes a Job of."""
        client.CoreV1Api().create_namespaced_config_map(self.namespace, {"metadata": {"name": name, "labels": LABELS}})

    def clear(self) -> None:
        """Remove what was made."""
        label = ",".join(f"{key}={value}" for key, value in LABELS.items())
        client.CoreV1Api().delete_collection_namespaced_config_map(self.namespace, label_selector=label)
        client.CustomObjectsApi().delete_collection_namespaced_custom_object(
            *KIND, self.namespace, "finetunes", label_selector=label
        )


class Watcher(threading.Thread):
    """Notes when each Job appears, by the name of the object that owns it."""

    def __init__(self, namespace: str) -> None:
        super().__init__(daemon=True)
        self._namespace = namespace
        self._seen: dict[str, float] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        """Watch until the process ends."""
        jobs = client.BatchV1Api().list_namespaced_job
        with contextlib.suppress(ProtocolError):  # the cluster stops at the end
            for event in watch.Watch().stream(jobs, self._namespace):
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


def measure(place: Place, watcher: Watcher, runs: int, burst: int) -> dict[str, tuple[list[float], float]]:
    """For each candidate the seconds of each single object, and from the first of a burst to the last Job."""
    candidates: dict[str, Callable[[str], None]] = {
        "kopf, bare": place.create_config_map,
        "Codetune": place.create_fine_tune,
    }
    single: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(runs):
        for index, (candidate, create) in enumerate(candidates.items()):
            name = f"single-{index}-{number}"
            create(name)
            began = time.monotonic()
            single[candidate].append(watcher.wait_for(name) - began)
    together: dict[str, float] = {}
    for index, (candidate, create) in enumerate(candidates.items()):
        names = [f"burst-{index}-{number}" for number in range(burst)]
        began = time.monotonic()
        for name in names:
            create(name)
        together[candidate] = max(watcher.wait_for(name) for name in names) - began
    return {candidate: (single[candidate], together[candidate]) for candidate in candidates}


@contextmanager
def local_cluster(folder: Path) -> Iterator[Place]:
    """Cluster, operator, and a Project with data."""
    files = folder / "files"
    make_repository("kopf", files / "code.git")
    laptop = Laptop(folder)
    try:
        laptop.start_cluster()
        laptop.start_operator(laptop.install({"settings": {"fileRoot": str(files)}}))
        config.load_kube_config(str(laptop.kubeconfig))
        body: dict[str, Any] = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": "code"}}
        objects = client.CustomObjectsApi()
        objects.create_namespaced_custom_object(*KIND, "default", "projects", body | {"spec": PROJECT})
        laptop.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "project/code")
        yield Place(laptop.kubeconfig, "default", "code", "file:///model")
    finally:
        laptop.stop()


@contextmanager
def given_cluster(place: Place) -> Iterator[Place]:
    """A cluster that is there."""
    config.load_kube_config(str(place.kubeconfig))
    try:
        yield place
    finally:
        place.clear()


@contextmanager
def bare_kopf(place: Place) -> Iterator[None]:
    """The peer."""
    line = [sys.executable, "-m", "kopf", "run", "--quiet", "--namespace", place.namespace, str(HERE / "peer.py")]
    peer = subprocess.Popen(line, env={**os.environ, "KUBECONFIG": str(place.kubeconfig)})
    try:
        yield
    finally:
        peer.terminate()
        peer.wait()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--burst", type=int, default=100)
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--project", default="code")
    parser.add_argument("--model", default="pvc://models/model")
    options = parser.parse_args()
    given = Place(options.kubeconfig, options.namespace, options.project, options.model)
    with tempfile.TemporaryDirectory() as folder:
        cluster = given_cluster(given) if options.kubeconfig else local_cluster(Path(folder))
        with cluster as place, bare_kopf(place):
            watcher = Watcher(place.namespace)
            watcher.start()
            place.create_config_map("warm")
            watcher.wait_for("warm")
            found = measure(place, watcher, options.runs, options.burst)
    print(f"| operator | p50 ms | p95 ms | {options.burst} at once, s |\n|---|---|---|---|")
    for candidate, (single, together) in found.items():
        p95 = statistics.quantiles(single, n=20)[-1]
        print(f"| {candidate} | {1000 * statistics.median(single):.0f} | {1000 * p95:.0f} | {together:.2f} |")


if __name__ == "__main__":
    main()
