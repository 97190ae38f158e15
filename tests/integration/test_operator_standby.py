"""Two operators of which one works, with the rights of the chart: each end of a leader, and who works then.

Here the processes and their ends are real, and so are the 15 seconds that a Lease lasts. What is written into it when
is in tests/unit/operator/cluster/test_leading.py.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from chart import apply_chart, write_operator_kubeconfig
from codetune_local.daemon.trial import TrialCluster

if TYPE_CHECKING:
    from integration.conftest import Installation

Obj = dict[str, Any]
RELEASE, SYSTEM, TEAM = "paired", "codetune-paired", "paired-team"
EXPIRY_SECONDS = 25
"""What a Lease lasts, two looks at it, and the start of the operator that takes over."""


@dataclass
class Pair:
    """The cluster and the operators that were started in it."""

    cluster: TrialCluster
    folder: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    probes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    def start(self, name: str) -> None:
        line = [sys.executable, "-m", "codetune_operator", "--settings", str(self.folder / "settings.yaml")]
        with socket.create_server(("127.0.0.1", 0)) as probes, socket.create_server(("127.0.0.1", 0)) as metrics:
            self.probes[name] = f"http://127.0.0.1:{probes.getsockname()[1]}/healthz"
            self.metrics[name] = f"http://127.0.0.1:{metrics.getsockname()[1]}/metrics"
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [
                    *line,
                    "--kubeconfig",
                    str(self.folder / "kubeconfig"),
                    "--elect",
                    name,
                    "--liveness",
                    self.probes[name],
                    "--metrics",
                    self.metrics[name],
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def is_alive(self, name: str) -> bool:
        try:
            with urllib.request.urlopen(self.probes[name], timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def is_leading(self, name: str) -> bool:
        """Whether it tells Prometheus that it is the one that works."""
        with urllib.request.urlopen(self.metrics[name], timeout=5) as answer:
            return b"\ncodetune_operator_leading 1.0\n" in answer.read()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def end(self, name: str, number: signal.Signals) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(timeout=30)

    def holder(self) -> str:
        return self.kubectl("-n", SYSTEM, "get", "leases", "-o", "jsonpath={.items[*].spec.holderIdentity}")

    def await_holder(self, name: str, seconds: float) -> None:
        self.cluster.wait_for(lambda: self.holder() == name, f"{name} holds the Lease: {self.told()}", seconds)

    def await_standby(self, name: str) -> None:
        self.cluster.wait_for(lambda: "stands by" in self.log(name).read_text(), f"{name} stands by", 30)

    def told(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.folder.glob("*.log")}

    def assert_once(self, project: str, seconds: float = 30) -> None:
        """Something new happens, and one operator alone says so."""
        about = f"involvedObject.name={project},reason=Suspended"
        events = ("-n", TEAM, "get", "events", "--field-selector", about, "-o", "name")
        spec = {"sources": [{"name": "app", "git": {"url": "https://example.org/a.git"}}], "suspend": True}
        obj = {"apiVersion": "codetune.dev/v1alpha1", "kind": "Project", "metadata": {"name": project}, "spec": spec}
        self.kubectl("-n", TEAM, "apply", "-f", "-", text=yaml.safe_dump(obj))
        self.cluster.wait_for(lambda: self.kubectl(*events), f"an Event about {project}: {self.told()}", seconds)
        time.sleep(1)
        assert len(self.kubectl(*events).split()) == 1

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.cluster.kubectl(*arguments, text=text)


@pytest.fixture
def pair(installation: "Installation", tmp_path: Path) -> Iterator[Pair]:
    """`one` works and `two` stands by."""
    running = installation.cluster
    if installation.process is not None:
        installation.end_operator(signal.SIGTERM)
    values = {"replicas": 2, "crds": {"enabled": False}, "userRoles": {"enabled": False}}
    (tmp_path / "settings.yaml").write_text(apply_chart(running.kubectl, values, RELEASE, SYSTEM))
    write_operator_kubeconfig(running.kubectl, running.kubeconfig, tmp_path / "kubeconfig", RELEASE, SYSTEM)
    running.kubectl("create", "namespace", TEAM)
    made = Pair(running, tmp_path)
    made.start("one")
    made.await_holder("one", seconds=30)
    made.start("two")
    made.await_standby("two")
    yield made
    # The one that works lets go of what it holds there.
    running.kubectl("delete", "namespace", TEAM)
    for name in list(made.processes):
        made.end(name, signal.SIGKILL)
    running.kubectl("delete", "namespace", SYSTEM)
    running.kubectl("delete", "clusterrole,clusterrolebinding", f"{RELEASE}-operator")


def test_one_of_two_works_and_the_other_takes_over_however_it_ends(pair: Pair) -> None:
    pair.assert_once("first")
    assert [name for name in pair.processes if pair.is_alive(name)] == ["one", "two"]
    assert [name for name in pair.processes if pair.is_leading(name)] == ["one"]

    assert pair.end("one", signal.SIGKILL) == -signal.SIGKILL
    pair.await_holder("two", EXPIRY_SECONDS)
    pair.assert_once("second")
    assert pair.is_alive("two")
    assert pair.is_leading("two")

    pair.start("one")
    pair.await_standby("one")
    begun = time.monotonic()
    assert pair.end("two", signal.SIGTERM) == 0
    assert pair.holder() in ("", "one"), "it is released before the process ends"
    pair.await_holder("one", seconds=4)
    assert time.monotonic() - begun < 6
    pair.assert_once("third")

    told = "".join(pair.told().values())
    assert "Traceback" not in told
    assert "forbidden" not in told.lower()


def test_a_standby_ends_at_once_when_it_is_told_to(pair: Pair) -> None:
    begun = time.monotonic()
    assert pair.end("two", signal.SIGTERM) == 0
    assert time.monotonic() - begun < 5
    assert "Traceback" not in pair.log("two").read_text()
    assert pair.holder() == "one"
    pair.assert_once("first")


def test_a_leader_that_was_held_up_for_too_long_ends_and_says_why(pair: Pair) -> None:
    late = pair.processes["one"]
    late.send_signal(signal.SIGSTOP)
    pair.await_holder("two", EXPIRY_SECONDS)
    late.send_signal(signal.SIGCONT)
    assert late.wait(timeout=30) == 1
    del pair.processes["one"]
    said = pair.log("one").read_text()
    assert "codetune-operator: one could not renew the Lease" in said
    assert "Traceback" not in said
    pair.assert_once("first")
