"""Replicas of one ModelDeployment as processes of this machine, told of their adapters as the operator tells pods."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter, DesiredAdapters, ServerReport
from codetune_api.digests import FileEntry, digest_files

TOKEN = "a-token-of-the-operator"
BASE_URI = "hf://org/tiny@main"
START_SECONDS = 300.0
STOP_SECONDS = 60.0


@dataclass
class Replica:
    """One server with its own scratch space, on the store that all share."""

    folder: Path
    """Everything of its own; the store lies beside it as `store`."""
    command: list[str]
    port: int
    process: "subprocess.Popen[bytes] | None" = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start the process; a former one is gone."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Return once its readiness probe succeeds. Raises: RuntimeError with the log's end."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                state = "is not ready in time" if self.process and self.process.poll() is None else "has ended"
                raise RuntimeError(f"{self.url} {state}:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """What the kubelet would find; bare vLLM has no readiness of its own, so its health counts."""
        path = "/codetune/ready" if "codetune_server" in self.command else "/health"
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def tell(self, desired: DesiredAdapters, *, wait: float = 60) -> ServerReport:
        """Hand it a set as the operator does; returns its report once that is settled."""
        answer = httpx.put(
            f"{self.url}/codetune/adapters?wait={wait:g}", json=desired.to_wire(), headers=bearer(TOKEN), timeout=90
        )
        answer.raise_for_status()
        return ServerReport.from_wire(answer.json())

    def remember(self, desired: DesiredAdapters) -> None:
        """Change what it finds at its next start: the mounted ConfigMap."""
        (self.folder / "adapters.json").write_text(json.dumps(desired.to_wire()))

    def kill(self) -> None:
        """SIGKILL for the server and everything that it started."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM as the kubelet sends it, and SIGKILL when that takes too long; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL


def make_replica(root: Path, name: str, model: Path, arguments: list[str]) -> Replica:
    """A replica of ours, not started yet, with one thread; `root` holds the store and the API keys of all."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN)
    replica = Replica(folder, [], free_port())
    replica.command = [
        *(sys.executable, "-m", "codetune_server", "serve", "--", "--model", str(model), "--served-model-name", "base"),
        *("--port", str(replica.port), *arguments),
    ]
    replica.environment = {
        "HF_HUB_OFFLINE": "1",
        "CODETUNE_STORE": str(root / "store"),
        "CODETUNE_ADAPTERS": str(folder / "adapters.json"),
        "CODETUNE_ADAPTER_TOKEN_FILE": str(folder / "token"),
        "CODETUNE_ADAPTER_CACHE": str(folder / "cache"),
        "CODETUNE_BASE_MODEL": BASE_URI,
        "CODETUNE_BIND_HOST": "127.0.0.1",
        "CODETUNE_DEVICE": "cpu",
        **one_thread(),
    }
    if (root / "keys").is_dir():
        replica.environment["CODETUNE_API_KEYS"] = str(root / "keys")
    replica.remember(DesiredAdapters())
    return replica


def one_thread() -> dict[str, str]:
    """A small model is computed faster by one thread than by several that wait for each other on shared cores.

    It is bound to no core, so that whatever else the machine does can't starve it.
    """
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


def desire(store: Path, versions: Mapping[str, str]) -> DesiredAdapters:
    """The set that serves these: model name → folder of the store."""
    return DesiredAdapters(
        adapters=[
            DesiredAdapter(name=name, path=folder, digest=digest_folder(store / folder))
            for name, folder in versions.items()
        ]
    )


def digest_folder(folder: Path) -> str:
    """The digest that a trainer's manifest would have."""
    data = {file: (folder / file).read_bytes() for file in ADAPTER_FILES}
    entries = {file: FileEntry(sha256=hashlib.sha256(each).hexdigest(), bytes=len(each)) for file, each in data.items()}
    return digest_files(entries)


def bearer(key: str) -> dict[str, str]:
    """Headers with a key or token."""
    return {"Authorization": f"Bearer {key}"}


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
