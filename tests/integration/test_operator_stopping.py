"""The end of the operator's process: what is under way is finished, and nothing is said that sounds like a fault."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from codetune_local.apiserver.registry import Registry
from codetune_local.testing import serve
from codetune_operator.cluster.connecting import MERGE_PATCH, connect
from codetune_operator.cluster.kinds import LEASE, PROJECT
from codetune_operator.cluster.leases import LEASE_NAME

DEFINITIONS = Path(__file__).resolve().parents[2] / "crds"
SLOW = 7.0
"""Seconds; kopf cancels what still runs 5 s after its own end."""
PROGRAM = f"""
import asyncio, sys
from codetune_operator import main
from codetune_operator.handlers.reconciling import Reconciler

async def look(self, key):
    print("a look begins", flush=True)
    await asyncio.sleep({SLOW})
    print("a look ends", flush=True)

Reconciler.look = look
sys.exit(main.main(["--kubeconfig", *sys.argv[1:]]))
"""


@pytest.fixture
def kubeconfig() -> Iterator[Path]:
    """An API server that knows Codetune's kinds."""
    registry = Registry.open(None)
    for name in ("team", "codetune-system"):
        registry.create(registry.by_key("namespaces"), "", {"metadata": {"name": name}})
    with serve(registry) as file:
        cluster = connect(file)
        for path in DEFINITIONS.glob("*.yaml"):
            definition = yaml.safe_load(path.read_text())
            cluster.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=definition)
        yield file
        cluster.api.rest_client.pool_manager.clear()


@contextmanager
def looking(kubeconfig: Path, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """An operator in the midst of a look, and what it has said; ends it with the context, then all is said."""
    line = [sys.executable, "-c", PROGRAM, str(kubeconfig), *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as operator:
        assert operator.stdout is not None
        said = [next(operator.stdout)]
        spec = {"sources": [{"name": "app", "git": {"url": "https://example.org/app.git"}}]}
        project = {"apiVersion": PROJECT.api_version, "kind": "Project", "metadata": {"name": "shop"}, "spec": spec}
        cluster = connect(kubeconfig)
        cluster.send("POST", PROJECT.path("team"), body=project)
        while "a look begins" not in said[-1]:
            said.append(next(operator.stdout))
        yield operator, said
        said += operator.stdout
    cluster.api.rest_client.pool_manager.clear()


def test_a_look_that_is_under_way_is_finished_however_long_it_takes(kubeconfig: Path) -> None:
    with looking(kubeconfig) as (operator, said):
        operator.send_signal(signal.SIGTERM)
    told = "".join(said)
    assert operator.returncode == 0, told
    assert told.count("a look ends") == told.count("a look begins"), told
    assert "Traceback" not in told


def test_a_lease_is_released_after_the_looks_that_are_under_way(kubeconfig: Path) -> None:
    with looking(kubeconfig, "--elect", "me") as (operator, said):
        operator.send_signal(signal.SIGTERM)
    told = "".join(said)
    assert operator.returncode == 0, told
    assert 0 < told.index("a look ends") < told.index("me has released the Lease"), told


def test_a_look_that_is_under_way_is_broken_off_when_the_lease_is_lost(kubeconfig: Path) -> None:
    cluster = connect(kubeconfig)
    with looking(kubeconfig, "--elect", "me") as (operator, said):
        path, patch = LEASE.path("codetune-system", LEASE_NAME), {"spec": {"holderIdentity": "other"}}
        cluster.send("PATCH", path, body=patch, content_type=MERGE_PATCH)
    told = "".join(said)
    assert operator.returncode == 1, told
    assert "codetune-operator: other has taken the Lease codetune-system/codetune-operator over" in told
    assert "a look ends" not in told
    assert "Traceback" not in told
    cluster.api.rest_client.pool_manager.clear()
