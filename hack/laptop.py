"""Codetune on one machine: the local cluster, the chart's objects in it, and the operator as a process of its own.

The operator runs exactly as in a cluster but for its Deployment: with the chart's ServiceAccount, so that the chart's
RBAC is really evaluated, and with the settings that the chart renders.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

REPOSITORY = Path(__file__).resolve().parent.parent
CHART = REPOSITORY / "charts" / "codetune"
SYSTEM_NAMESPACE = "codetune-system"
RELEASE = "codetune"


def render_chart(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chart's objects as Helm renders them."""
    manifests = Chart.load(CHART).render(dict(values), name=RELEASE, namespace=SYSTEM_NAMESPACE)
    documents = (document for text in manifests.values() for document in _documents(text))
    return [document for document in documents if isinstance(document, dict) and "kind" in document]


def _documents(text: str) -> list[Any]:
    try:
        return list(yaml.safe_load_all(text))
    except yaml.YAMLError:  # NOTES.txt is prose
        return []


class Laptop:
    """A local cluster in `state`, with Codetune installed and its operator running."""

    def __init__(self, state: Path, *, gpus: int = 0) -> None:
        self.state = state
        self.gpus = gpus
        self.kubeconfig = state / "cluster" / "kubeconfig"
        self.operator: subprocess.Popen[bytes] | None = None

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl; returns its output. Raises: RuntimeError with what it said."""
        done = subprocess.run(self.kubectl_command(*arguments), input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubectl_command(self, *arguments: str) -> list[str]:
        """The command line that `kubectl` runs."""
        return [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]

    def start_cluster(self) -> None:
        """Start the local cluster; running already is fine. Raises: subprocess.CalledProcessError."""
        self.local("up", "--gpus", str(self.gpus))

    def local(self, command: str, *arguments: str) -> str:
        """Run `codetune local COMMAND` on this cluster."""
        line = [sys.executable, "-m", "codetune_local.main", "local", command, "--state", str(self.state / "cluster")]
        return subprocess.run([*line, *arguments], check=True, capture_output=True, text=True).stdout

    def install(self, values: Mapping[str, Any]) -> Path:
        """Apply the chart's objects but the Deployment; returns the file with the operator's settings."""
        objects = [found for found in render_chart(values) if found["kind"] != "Deployment"]
        definitions = [found for found in objects if found["kind"] == "CustomResourceDefinition"]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        self.kubectl("apply", "--server-side", "-f", "-", text=yaml.safe_dump_all([namespace, *definitions]))
        names = [f"crd/{found['metadata']['name']}" for found in definitions]
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        others = [found for found in objects if found["kind"] != "CustomResourceDefinition"]
        self.kubectl("apply", "--server-side", "-n", SYSTEM_NAMESPACE, "-f", "-", text=yaml.safe_dump_all(others))
        return self._write_settings(objects)

    def _write_settings(self, objects: list[dict[str, Any]]) -> Path:
        texts = [found["data"]["settings.yaml"] for found in objects if "settings.yaml" in found.get("data", {})]
        path = self.state / "settings.yaml"
        path.write_text(texts[0])
        return path

    def operator_kubeconfig(self) -> Path:
        """A kubeconfig with nothing but the operator's ServiceAccount token."""
        token = self.kubectl("create", "token", RELEASE, "-n", SYSTEM_NAMESPACE, "--duration=24h").strip()
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["users"] = [{"name": RELEASE, "user": {"token": token}}]
        for context in config["contexts"]:
            context["context"]["user"] = RELEASE
        path = self.state / "operator.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def start_operator(self, settings: Path) -> None:
        """Start the operator in its own session; its log goes to `operator.log`."""
        kubeconfig = self.operator_kubeconfig()
        environment = {**os.environ, "POD_NAMESPACE": SYSTEM_NAMESPACE}
        line = [sys.executable, "-m", "codetune_operator", "--settings", str(settings), "--kubeconfig", str(kubeconfig)]
        with (self.state / "operator.log").open("ab") as log:
            self.operator = subprocess.Popen(
                line, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment
            )

    def stop(self) -> None:
        """Stop operator, cluster and every pod; nothing stays behind."""
        if self.operator is not None and self.operator.poll() is None:
            self.operator.terminate()
            try:
                self.operator.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self.operator.pid, signal.SIGKILL)
        if self.kubeconfig.exists():
            self.local("down")

    def wait_until_gone(self, resource: str, name: str, seconds: float) -> None:
        """Wait until an object is deleted. Raises: RuntimeError."""
        deadline = time.monotonic() + seconds
        while self.kubectl("get", resource, name, "--ignore-not-found", "-o", "name"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{resource} {name} is still there after {seconds:.0f} s")
            time.sleep(1)
