"""The operator for named namespaces only: with Roles instead of a ClusterRole, and with its liveness endpoint."""

import json
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
HERE, AWAY = "here", "away"
PROJECT = {
    "apiVersion": "codetune.dev/v1alpha1",
    "kind": "Project",
    "metadata": {"name": "shop"},
    "spec": {"sources": [{"name": "app", "git": {"url": "https://example.org/a.git"}}], "suspend": True},
}


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "codetune-artifacts", "finalizers": ["example.com/hold"]},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture
def empty(installation: "Installation") -> Iterator[TrialCluster]:
    """The cluster without an operator."""
    running = installation.cluster
    if installation.process is not None:
        installation.end_operator(signal.SIGTERM)
    yield running
    running.kubectl("delete", "namespace", SYSTEM)


@pytest.fixture
def scoped(empty: TrialCluster, tmp_path: Path) -> Iterator[tuple[TrialCluster, str, Path]]:
    """The cluster with an operator that was given one namespace of two; its liveness URL; its log."""
    for name in (OURS, THEIRS):
        empty.kubectl("create", "namespace", name)
    install(empty, tmp_path, OURS)
    url = f"http://127.0.0.1:{free_port()}/healthz"
    process = start(empty, tmp_path, url)
    yield empty, url, tmp_path / "operator.log"
    process.terminate()
    process.wait(timeout=30)
    for name in (OURS, THEIRS):
        empty.kubectl("delete", "namespace", name, "--wait=false")


def install(running: TrialCluster, folder: Path, *named: str) -> None:
    values = {"watchNamespaces": list(named), "crds": {"enabled": False}, "userRoles": {"enabled": False}}
    roles = [obj["metadata"]["name"] for obj in render_chart(values) if obj["kind"] == "ClusterRole"]
    assert roles == ["codetune-operator-ending"], "it can look at no more than the end of its namespaces"
    (folder / "settings.yaml").write_text(apply_chart(running.kubectl, values, RELEASE, SYSTEM))


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


def test_a_named_namespace_that_is_gone_holds_up_no_other_one_and_may_come_back(
    empty: TrialCluster, tmp_path: Path
) -> None:
    for name in (HERE, AWAY):
        empty.kubectl("create", "namespace", name)
    install(empty, tmp_path, HERE, AWAY)
    empty.kubectl("delete", "namespace", AWAY)
    url, log = f"http://127.0.0.1:{free_port()}/healthz", tmp_path / "operator.log"
    process = start(empty, tmp_path, url)

    def await_project(namespace: str) -> None:
        empty.kubectl("-n", namespace, "apply", "-f", "-", text=yaml.safe_dump(PROJECT))
        look = ("-n", namespace, "get", "cproj", "shop", "-o", "jsonpath={.status.phase}")
        empty.wait_for(lambda: empty.kubectl(*look) == "Suspended", f"the project is reconciled: {log.read_text()}")

    try:
        empty.wait_for(lambda: is_alive(url), "the operator runs")
        assert f"Namespace {AWAY} is left out for now" in log.read_text()
        await_project(HERE)
        empty.kubectl("create", "namespace", AWAY)
        install(empty, tmp_path, HERE, AWAY)
        scope = f"reconciles the namespaces {HERE}, {AWAY}."
        empty.wait_for(lambda: scope in log.read_text(), "the watches begin anew", seconds=90)
        empty.wait_for(lambda: is_alive(url), "the operator runs on")
        await_project(AWAY)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        for name in (HERE, AWAY):
            empty.kubectl("delete", "namespace", name, "--wait=false")


def test_a_watch_that_is_refused_holds_up_no_other_namespace_and_is_begun_again(
    empty: TrialCluster, tmp_path: Path
) -> None:
    beside, unwatched = "beside-unwatched", "unwatched"
    for name in (beside, unwatched):
        empty.kubectl("create", "namespace", name)
    install(empty, tmp_path, beside, unwatched)
    # Lists are allowed and watches are not: so kopf is refused what it can't go on without.
    role = ("role", f"{RELEASE}-operator", "--type=json", "--field-manager=test", "-p")
    rules = yaml.safe_load(empty.kubectl("-n", unwatched, "get", *role[:2], "-o", "yaml"))["rules"]
    fewer = [{**rule, "verbs": [verb for verb in rule["verbs"] if verb != "watch"]} for rule in rules]

    def allow(allowed: list[Obj]) -> None:
        change = [{"op": "replace", "path": "/rules", "value": allowed}]
        empty.kubectl("-n", unwatched, "patch", *role, json.dumps(change))

    allow(fewer)
    url, log = f"http://127.0.0.1:{free_port()}/healthz", tmp_path / "operator.log"
    process = start(empty, tmp_path, url)
    look = ("get", "cproj", "shop", "-o", "jsonpath={.status.phase}")

    def await_project(namespace: str) -> None:
        empty.kubectl("-n", namespace, "apply", "-f", "-", text=yaml.safe_dump(PROJECT))
        empty.wait_for(
            lambda: empty.kubectl("-n", namespace, *look) == "Suspended", f"it is reconciled: {log.read_text()}"
        )

    try:
        await_project(beside)
        assert f"Namespace {unwatched} is left out for now: The operator may list" in log.read_text()
        assert process.poll() is None
        allow(rules)
        scope = f"reconciles the namespaces {beside}, {unwatched}."
        empty.wait_for(lambda: scope in log.read_text(), "the watches begin anew", seconds=90)
        await_project(unwatched)
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        for name in (beside, unwatched):
            empty.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize(
    ("going", "restarted"),
    [pytest.param("going-first", False, id="it goes on running"), pytest.param("going-next", True, id="it was down")],
)
def test_a_named_namespace_ends_though_it_took_the_operators_role_away_first(
    going: str, restarted: bool, empty: TrialCluster, tmp_path: Path
) -> None:
    beside = f"beside-{going}"
    for name in (beside, going):
        empty.kubectl("create", "namespace", name)
    install(empty, tmp_path, beside, going)
    url, log = f"http://127.0.0.1:{free_port()}/healthz", tmp_path / "operator.log"
    process = start(empty, tmp_path, url)
    try:
        empty.kubectl("-n", going, "apply", "-f", "-", text=yaml.safe_dump_all([PROJECT, CLAIM]))
        held = ("-n", going, "get", "cproj", "shop", "-o", "jsonpath={.metadata.finalizers}")
        empty.wait_for(lambda: "artifacts" in empty.kubectl(*held), f"the project is held: {log.read_text()}")
        if restarted:
            process.terminate()
            process.wait(timeout=30)
        empty.kubectl("-n", going, "delete", "rolebinding,role", f"{RELEASE}-operator")
        empty.kubectl("delete", "namespace", going, "--wait=false")
        if restarted:
            empty.wait_for(
                lambda: "deletionTimestamp" in empty.kubectl("-n", going, "get", "cproj", "-o", "yaml"), "it ends"
            )
            process = start(empty, tmp_path, url)
        find = ("-n", going, "get", "cproj", "-o", "name")
        empty.wait_for(lambda: not empty.kubectl(*find), f"the project goes: {log.read_text()}", seconds=60)
        # The claim stood for a store that there still is: without one there is nothing to wait for.
        release = '{"metadata": {"finalizers": null}}'
        empty.kubectl("-n", going, "patch", "pvc", "codetune-artifacts", "--type=merge", "-p", release)
        empty.kubectl("wait", "--for=delete", f"namespace/{going}", "--timeout=60s")
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        for name in (beside, going):
            empty.kubectl("delete", "namespace", name, "--wait=false", check=False)


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
