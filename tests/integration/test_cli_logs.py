"""`kubectl codetune logs` against real pods: a local cluster with its kubelet, and Jobs as the operator makes them.

No operator runs: a test says itself where the run stands.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from codetune_local.daemon.trial import TrialCluster, cluster

Obj = dict[str, Any]
CRDS = Path(__file__).parents[2] / "crds"
MOMENT = "2026-01-01T00:00:00Z"
LABELS = {"codetune.dev/finetune": "coder", "app.kubernetes.io/component": "train"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[TrialCluster]:
    """A cluster with a FineTune `coder` that runs."""
    with cluster(tmp_path / "cluster", "--job-backoff", "0.3") as started:
        started.kubectl("apply", "-f", str(CRDS))
        spec = {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}
        api_version = "codetune.dev/v1alpha1"
        started.apply({"apiVersion": api_version, "kind": "FineTune", "metadata": {"name": "coder"}, "spec": spec})
        set_phase(started, "Running")
        yield started


def set_phase(running: TrialCluster, phase: str, *, ready: str = "") -> None:
    """Where the run stands, and why it is not ready."""
    told = {"type": "Ready", "status": "False", "reason": phase, "message": ready, "lastTransitionTime": MOMENT}
    patch = json.dumps({"status": {"phase": phase, "conditions": [told] if ready else []}})
    running.kubectl("patch", "finetune", "coder", "--subresource=status", "--type=merge", "-p", patch)


def run_job(running: TrialCluster, script: str, **spec: Any) -> None:
    """A training Job whose first container prints a line too."""
    pod = {
        "restartPolicy": "Never",
        "initContainers": [make_container("fetch", "echo fetching; sleep 1")],
        "containers": [make_container("train", script)],
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    metadata = {"name": "coder-train", "labels": LABELS}
    running.apply(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template, **spec}}
    )


def make_container(name: str, script: str) -> Obj:
    return {"name": name, "image": "local/exec", "command": ["sh", "-c", script]}


def start_logs(running: TrialCluster, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "codetune_cli", "logs", "coder", *words, "--kubeconfig", str(running.kubeconfig)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_log_is_followed_from_before_the_pod_is_there_over_an_attempt_that_dies(running: TrialCluster) -> None:
    set_phase(running, "Queued", ready="The run waits for its turn.")
    following = start_logs(running, "--follow")
    assert following.stderr is not None
    assert following.stderr.readline() == "Waiting: Queued: The run waits for its turn.\n"
    run_job(running, "for i in 1 2 3; do echo step $i; sleep 0.7; done; exit 1", backoffLimit=1)
    running.kubectl("wait", "--for=condition=Failed", "job/coder-train", "--timeout=60s")
    set_phase(running, "Failed")
    out, said = following.communicate(timeout=60)
    # What ends between two looks, as fetching here, is skipped.
    steps = [line for line in out.splitlines() if line != "fetching"]
    assert (following.returncode, steps) == (0, ["step 1", "step 2", "step 3"] * 2), said


def test_each_node_of_a_run_has_a_log(running: TrialCluster) -> None:
    script = "echo node $JOB_COMPLETION_INDEX"
    run_job(running, script, completions=2, parallelism=2, completionMode="Indexed")
    running.kubectl("wait", "--for=condition=Complete", "job/coder-train", "--timeout=60s")
    first, second = start_logs(running), start_logs(running, "--pod", "1")
    out, said = first.communicate(timeout=60)
    assert (first.returncode, out) == (0, "node 0\n"), said
    assert "of 2; --pod shows another: 0, 1, or a name." in said
    assert second.communicate(timeout=60) == ("node 1\n", "")
