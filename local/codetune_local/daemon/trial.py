"""A whole local cluster for a test: its own daemon in its own folder, with kubectl, and ways to kill things."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from codetune_local.daemon.backgrounding import start_in_background, stop
from codetune_local.daemon.state import StateFolder
from codetune_local.kubelet.podfolders import PodFolder
from codetune_local.kubelet.sweeping import running_attempts

_STEP = 0.05


@dataclass
class TrialCluster:
    """A running local cluster."""

    state: StateFolder
    options: tuple[str, ...] = ()
    _daemon: "subprocess.Popen[bytes] | None" = None

    @property
    def kubeconfig(self) -> Path:
        """For clients."""
        return self.state.kubeconfig

    def start(self, *options: str) -> None:
        """Start the daemon, also after it was killed; `options` replace those of the first start."""
        given = options or self.options
        self._daemon = start_in_background(self.state, ["--state", str(self.state.path), *given])

    def kill_daemon(self) -> None:
        """SIGKILL: pods go on without it."""
        pid = self.state.daemon_pid()
        assert pid is not None, "the daemon does not run"
        os.kill(pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        """Wait for the end of a daemon that was killed or stopped."""
        if self._daemon is not None:
            self._daemon.wait(timeout=60)

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        """Run kubectl; returns what it prints. Raises: AssertionError with what it complains of."""
        command = [str(Path(sys.executable).parent / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *objects: dict[str, Any]) -> None:
        """kubectl apply."""
        self.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))

    def get(self, *arguments: str) -> Any:
        """kubectl get -o json."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def wait_for(self, ready: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
        """Look again and again; returns the first truthy answer. Raises: AssertionError."""
        deadline = time.monotonic() + seconds
        while not (answer := ready()):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
            time.sleep(_STEP)
        return answer

    def processes_of(self, pod_uid: str) -> list[int]:
        """The main processes of a pod's running containers."""
        attempts = running_attempts(PodFolder(self.state.path / "pods" / pod_uid))
        return [attempt.pid for attempt in attempts if attempt.pid is not None]


@contextmanager
def cluster(folder: Path, *options: str) -> Iterator[TrialCluster]:
    """A local cluster in `folder`, stopped with all its pods at the end.

    Args:
        folder: Where its state lies.
        options: Those of `codetune local up`, e.g. `"--gpus", "1"`.
    """
    running = TrialCluster(StateFolder(folder), options)
    try:
        running.start()
        yield running
    finally:
        stop(running.state)
        running.reap()
