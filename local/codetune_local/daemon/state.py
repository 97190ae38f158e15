"""The state folder of a local cluster: what lies where, who may read it, and that only one daemon uses it."""

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # publishes no type information

from codetune_local.kubelet.shim import process_identity, write_json


class StateError(Exception):
    """The state folder can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class StateFolder:
    """`.codetune/local` or what `--state` says."""

    path: Path

    @property
    def kubeconfig(self) -> Path:
        """For kubectl and every other client."""
        return self.path / "kubeconfig"

    @property
    def database(self) -> Path:
        """All objects."""
        return self.path / "cluster.sqlite"

    @property
    def log(self) -> Path:
        """What the daemon has to say."""
        return self.path / "daemon.log"

    @property
    def claims(self) -> Path:
        """The folders behind PersistentVolumeClaims."""
        return self.path / "claims"

    @property
    def _settings(self) -> Path:
        return self.path / "cluster.json"

    @property
    def _daemon(self) -> Path:
        return self.path / "daemon.json"

    def make(self) -> None:
        """Create it for its owner alone. Raises: StateError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)  # it holds tokens and Secrets
        except OSError as error:
            raise StateError(f"--state {self.path}: {error.strerror}; name a folder that you may write to") from error

    def lock(self) -> int:
        """Take the folder for this process until it ends. Raises: StateError when another daemon has it."""
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise StateError(
                f"another daemon (process {self.daemon_pid() or 'unknown'}) uses {self.path}: stop it with "
                f"`codetune local down --state {self.path}`, or give another folder with --state"
            ) from error
        return descriptor

    def read_settings(self) -> dict[str, Any]:
        """What an earlier start chose: `port`."""
        return _read(self._settings)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Keep it for the next start."""
        write_json(str(self._settings), settings)

    def announce_daemon(self, port: int) -> None:
        """This process serves from now on."""
        pid = os.getpid()
        write_json(str(self._daemon), {"pid": pid, "identity": process_identity(pid), "port": port})

    def daemon_pid(self) -> int | None:
        """The process that serves this folder; None when there is none."""
        found = _read(self._daemon)
        pid = found.get("pid")
        if pid is None or not psutil.pid_exists(pid) or process_identity(pid) != found.get("identity", ""):
            return None
        return int(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None

    def exists(self) -> bool:
        """Whether a cluster was ever started here."""
        return self._settings.exists()

    def delete(self) -> None:
        """Remove everything. Raises: StateError when this is no state folder."""
        if not self.exists():
            raise StateError(f"{self.path} is not a local cluster's state folder: nothing was deleted")
        shutil.rmtree(self.path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return content
