"""Containers as processes: start them under a shim, find them again, signal them, learn how they ended."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # publishes no type information

from codetune_local.kubelet.shim import process_identity, write_json
from codetune_local.machinery.times import parse_time

SHIM = Path(__file__).with_name("shim.py")
LOG_MAX_BYTES = 64 * 1024 * 1024
"""A log is turned over at this size; the one before is kept."""
LOST = 137
"""Exit code of a container that nobody saw ending."""
_POLL_SECONDS = 0.2
_CLOCK_SLACK = 5.0
"""Seconds that start times may differ where only the wall clock tells processes apart."""


@dataclass(frozen=True)
class Launch:
    """A command, ready to run on this host."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    folder: str
    """Where the shim leaves log and status."""
    cores: list[int]
    """Cores it may use; empty: all."""
    log_max_bytes: int = LOG_MAX_BYTES


@dataclass(frozen=True)
class Attempt:
    """One run of one container, as its folder tells it."""

    number: int
    """How many times the container was restarted before."""
    folder: Path
    crashes: int = 0
    """How many runs ended in a row before this one, each after less than ten minutes."""
    pid: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int = 0
    reason: str = ""
    message: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.exit_code is None

    @property
    def id(self) -> str:
        """containerID in status."""
        return f"process://{self.folder.parent.parent.parent.name}-{self.folder.parent.name}-{self.number}"


def read_attempt(folder: Path) -> Attempt:
    """What a folder tells about a run. Only reads: anybody may, at any time."""
    meta, started = _read(folder / "meta.json"), _read(folder / "started.json")
    ended = _read(folder / "exit.json")
    if not ended and started and not _is_same(started.get("shim_pid"), started.get("shim_identity", ""), started):
        ended = _read(folder / "exit.json") or _lost()
    verdict = _read(folder / "verdict.json")
    return Attempt(
        number=int(folder.name),
        folder=folder,
        crashes=meta.get("crashes", 0),
        pid=started.get("pid"),
        started_at=_time(started.get("started_at")),
        finished_at=_time(ended.get("finished_at")),
        exit_code=ended.get("exit_code"),
        signal=ended.get("signal", 0),
        reason=verdict.get("reason") or ended.get("reason", ""),
        message=verdict.get("message") or ended.get("message", ""),
    )


def settle_attempt(folder: Path) -> Attempt:
    """The same for the kubelet, which alone may decide that a run is lost: that is written down, and leftovers end."""
    attempt = read_attempt(folder)
    if (folder / "exit.json").exists() or (attempt.is_running and attempt.pid is not None):
        return attempt
    started = _read(folder / "started.json")
    if started and _is_same(started.get("pid"), started.get("identity", ""), started):
        _signal_group(started["pid"], signal.SIGKILL)  # its shim was killed: what it ran must not go on unseen
    write_json(str(folder / "exit.json"), _lost())
    return read_attempt(folder)


def has_processes(attempt: Attempt) -> bool:
    """Whether its main process or its supervisor is there, whatever its files say."""
    started = _read(attempt.folder / "started.json")
    pairs = (("pid", "identity"), ("shim_pid", "shim_identity"))
    return any(_is_same(started.get(pid), started.get(identity, ""), started) for pid, identity in pairs)


def _lost() -> dict[str, Any]:
    return {
        "exit_code": LOST,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located: it or its supervisor was killed while nobody watched.",
        "finished_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return content


def _time(text: str | None) -> datetime | None:
    return parse_time(text) if text else None


def _is_same(pid: int | None, identity: str, started: dict[str, Any]) -> bool:
    """Whether a process number still means the process that was started."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if identity:
            return process_identity(pid) == identity
        return bool(abs(process.create_time() - parse_time(started["started_at"]).timestamp()) < _CLOCK_SLACK)
    except psutil.NoSuchProcess:
        return False


async def start(launch: Launch, *, crashes: int) -> Attempt:
    """Start a container under a shim of its own. Raises: OSError when no process can be made."""
    folder = Path(launch.folder)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    write_json(str(folder / "meta.json"), {"crashes": crashes})
    shim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(SHIM)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    # Through stdin, so that secrets in the environment never lie in a file.
    answer, problem = await shim.communicate(json.dumps(asdict(launch)).encode())
    if not answer:
        raise OSError(f"the supervisor of {folder} did not start: {problem.decode(errors='replace')[-500:]}")
    return read_attempt(folder)


def send_signal(attempt: Attempt, number: signal.Signals) -> None:
    """Signal a running container: its main process, or for SIGKILL its whole group."""
    started = _read(attempt.folder / "started.json")
    if not _is_same(started.get("pid"), started.get("identity", ""), started):
        return
    if number == signal.SIGKILL:
        _signal_group(started["pid"], number)
        return
    try:
        os.kill(started["pid"], number)
    except ProcessLookupError:
        return  # it ended in this moment


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # it ended in this moment


def condemn(attempt: Attempt, reason: str, message: str = "") -> None:
    """Write down why the kubelet itself is about to kill a container; it becomes the reason in status."""
    write_json(str(attempt.folder / "verdict.json"), {"reason": reason, "message": message})


async def wait_until_ended(attempt: Attempt) -> Attempt:
    """Wait for the end of a run, however long; returns it with its exit status."""
    shim_pid = _read(attempt.folder / "started.json").get("shim_pid")
    if attempt.is_running and shim_pid and hasattr(os, "pidfd_open"):
        await _wait_for_exit(shim_pid)
    while (current := settle_attempt(attempt.folder)).is_running:
        await asyncio.sleep(_POLL_SECONDS)
    return current


async def _wait_for_exit(pid: int) -> None:
    """Sleep until a process ends that need not be a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return  # gone already; where pidfd is not allowed, the caller looks again and again
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def report() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, report)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def list_attempts(container_folder: Path, read: Callable[[Path], Attempt] = read_attempt) -> list[Attempt]:
    """All runs of a container that are still on disk, oldest first; the kubelet gives `settle_attempt` as `read`."""
    if not container_folder.is_dir():
        return []
    numbers = sorted(int(entry.name) for entry in container_folder.iterdir() if entry.name.isdecimal())
    return [read(container_folder / str(number)) for number in numbers]
