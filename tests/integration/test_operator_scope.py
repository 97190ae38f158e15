"""The operator for named namespaces only: with Roles instead of a ClusterRole, and with its liveness endpoint."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from chart import apply_chart, render_chart, write_operator_kubeconfig
from codetune_local.daemon.trial import TrialCluster, cluster

if TYPE_CHECKING:
    from integration.conftest import Installation

Obj = dict[str, Any]
RELEASE = "scoped"
SYSTEM, OURS, THEIRS = "codetune-scoped", "ours", "theirs"
PROJECT = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "Project",
    "metadata": {"name": "shop"},
    "spec": {"sources": [{"name": "app", "git": {"url": "https://example.org/a.git"}}], "suspend": True},
}


@pytest.fixture
def scoped(installation: "Installation", tmp_path: Path) -> Iterator[tuple[TrialCluster, str, Path]]:
    """The cluster with an operator that was given one namespace; its liveness URL; its log."""
    running = installation.cluster
    if installation.process is not None:
        installation.end_operator(signal.SIGTERM)
    for name in (OURS, THEIRS):
        running.kubectl("create", "namespace", name)
    values = {"watchNamespaces": [OURS], "crds": {"enabled": False}, "userRoles": {"enabled": False}}
    assert not [obj for obj in render_chart(values) if obj["kind"].startswith("ClusterRole")]
    (tmp_path / "settings.yaml").write_text(apply_chart(running.kubectl, values, RELEASE, SYSTEM))
    url = f"http://127.0.0.1:{free_port()}/healthz"
    process = start(running, tmp_path, url)
    yield running, url, tmp_path / "operator.log"
    process.terminate()
    process.wait(timeout=30)
    for name in (OURS, THEIRS, SYSTEM):
        running.kubectl("delete", "namespace", name, "--wait=false")


def start(running: TrialCluster, folder: Path, url: str) -> "subprocess.Popen[bytes]":
    kubeconfig = folder / "kubeconfig"
    write_operator_kubeconfig(running.kubectl, running.kubeconfig, kubeconfig, RELEASE, SYSTEM)
    line = [sys.executable, "-m", "codetune_operator", "--settings", str(folder / "settings.yaml")]
    with (folder / "operator.log").open("wb") as log:
        return subprocess.Popen(
            [*line, "--kubeconfig", str(kubeconfig), "--liveness", url],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_alive(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def test_only_the_named_namespaces_are_reconciled_with_roles_in_them_alone(
    scoped: tuple[TrialCluster, str, Path],
) -> None:
    running, url, log = scoped
    for namespace in (OURS, THEIRS):
        running.kubectl("-n", namespace, "apply", "-f", "-", text=yaml.safe_dump(PROJECT))

    def phase(namespace: str) -> str:
        return running.kubectl("-n", namespace, "get", "cproj", "shop", "-o", "jsonpath={.status.phase}")

    running.wait_for(lambda: phase(OURS) == "Suspended", f"the project is reconciled: {log.read_text()}")
    running.wait_for(lambda: is_alive(url), "the liveness endpoint answers")

    assert phase(THEIRS) == ""
    assert "forbidden" not in log.read_text().lower()


def test_without_its_rights_the_operator_says_which_one_it_lacks(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        running.kubectl("create", "namespace", SYSTEM)
        running.kubectl("-n", SYSTEM, "create", "serviceaccount", "scoped")
        (tmp_path / "settings.yaml").write_text(f"namespace: {SYSTEM}")
        process = start(running, tmp_path, f"http://127.0.0.1:{free_port()}/healthz")

        assert process.wait(timeout=60) == 1

    said = (tmp_path / "operator.log").read_text()
    assert 'cannot get resource "secrets"' in said
    assert "Helm chart" in said
    assert "Traceback" not in said
