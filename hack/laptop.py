"""Codetune on one machine: the local cluster, the chart's objects in it, and the operator as a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chart import SYSTEM_NAMESPACE, apply_chart, write_operator_kubeconfig

REPOSITORY = Path(__file__).resolve().parent.parent


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
        path = self.state / "settings.yaml"
        path.write_text(apply_chart(self.kubectl, values))
        return path

    def start_operator(self, settings: Path) -> None:
        """Start the operator in its own session; its log goes to `operator.log`."""
        kubeconfig = self.state / "operator.kubeconfig"
        write_operator_kubeconfig(self.kubectl, self.kubeconfig, kubeconfig)
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
