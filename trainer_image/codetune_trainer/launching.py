"""Starts a training run that takes several processes: one for each GPU of this node, by torchrun, in this pod.

torchrun ends all processes when one fails, and its own exit code says nothing of why. So each process leaves the code
that it would have ended with in a folder, and the pod ends with what those say together. An attempt is never repeated
inside a pod: the Job does that, and the run goes on from its last checkpoint.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from codetune_api.contracts import ENV_HOSTS, ENV_LEADER, TrainConfig

from codetune_trainer.errors import (
    EXIT_PEER_LOST,
    EXIT_PERMANENT,
    EXIT_RETRY,
    EXIT_STOPPED,
    InvalidParameters,
    PeerMissing,
)
from codetune_trainer.reporting import Reporter

_ENV_CODES = "CODETUNE_EXIT_CODES"
"""Folder for the exit codes of this node's processes."""
_ENV_INDEX = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in the pods of an Indexed Job."""
_STOP_SECONDS = 75
"""From SIGTERM to SIGKILL for the processes: less than the pod's own grace."""
_MEETING_SECONDS = 900
"""How long a node waits for the others: their pods may have to be scheduled, and images pulled."""
_LOOK_SECONDS = 1.0


def is_launched() -> bool:
    """Whether this process was started by a launcher."""
    return _ENV_CODES in os.environ


def needs_launcher(config: TrainConfig) -> bool:
    """Whether the run takes more than this process."""
    return config.nodes > 1 or config.gpus > 1


def node_index() -> int:
    """Which of the run's nodes this is."""
    index = os.environ.get(_ENV_INDEX, "")
    return int(index) if index.isdecimal() else 0


def leave_code(code: int) -> int:
    """Tell the launcher, if there is one, how this process ends; returns the exit status.

    A stop is a success for torchrun: it would end processes that are about to end by themselves.
    """
    folder = os.environ.get(_ENV_CODES)
    if folder is None:
        return code
    path = Path(folder) / os.environ["LOCAL_RANK"]
    path.with_suffix(".part").write_text(str(code))
    path.with_suffix(".part").rename(path)
    return 0 if code == EXIT_STOPPED else code


def launch(config: TrainConfig) -> int:
    """Run all processes of this node; returns the exit status of the pod. Raises: InvalidParameters, PeerMissing."""
    torchrun: subprocess.Popen[bytes] | None = None
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if torchrun is None:
            sys.exit(EXIT_STOPPED)  # nothing has begun
        # While it waits for other nodes it hears nothing, and has nothing to end.
        torchrun.send_signal(signal.SIGTERM if _has_children(torchrun.pid) else signal.SIGKILL)

    signal.signal(signal.SIGTERM, stop)
    if config.nodes > 1:
        Reporter(config.nonce).stage("Meeting", f"Waiting for all {config.nodes} pods of the run")
    processes = max(1, config.gpus)
    with tempfile.TemporaryDirectory(prefix="codes-") as codes:
        command = build_command(config)
        # A session of its own: a signal for this process's group reaches torchrun once, from here.
        torchrun = subprocess.Popen(command, env={**os.environ, _ENV_CODES: codes}, start_new_session=True)
        status = _wait(torchrun, Path(codes), processes, lambda: stopped)
        said = [int(path.read_text()) for path in _list_codes(Path(codes))]
    return judge(said, processes, status, stopped=stopped, nodes=config.nodes)


def _has_children(process: int) -> bool:
    """Whether a process has started others; True where that can't be read."""
    try:
        return any(path.read_text().strip() for path in Path(f"/proc/{process}/task").glob("*/children"))
    except OSError:
        return True


def _wait(torchrun: "subprocess.Popen[bytes]", codes: Path, processes: int, is_stopped: Callable[[], bool]) -> int:
    """torchrun's exit status; once its processes are done, it may only wait for a torchrun that was stopped.

    A signal that comes while it asks the system something in a short-lived process reaches it before it waits for other
    nodes, and is not heard there: so a torchrun that was stopped and has nothing to end is ended.
    """
    done = False
    while True:
        try:
            return torchrun.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if done or (is_stopped() and not _has_children(torchrun.pid)):
                torchrun.kill()
            done = len(_list_codes(codes)) == processes


def _list_codes(folder: Path) -> list[Path]:
    """Whole files only: one is written beside and renamed."""
    return [path for path in folder.iterdir() if path.name.isdecimal()]


def judge(codes: Sequence[int], processes: int, status: int, *, stopped: bool, nodes: int) -> int:
    """The pod's exit status.

    A process that PyTorch's watchdog over NCCL aborts leaves no code, and so counts as a failure: an error of its own
    GPU ends it in the same way as a lost process, and where all pods have that, the run must not begin again for ever.

    Args:
        codes: Exit codes of the processes that ended by themselves.
        processes: How many there were.
        status: torchrun's own exit status.
        stopped: Whether the pod was asked to stop.
        nodes: Pods of the run; of a single one the cause is in it, though none of its processes said so.
    """
    if EXIT_PERMANENT in codes:
        return EXIT_PERMANENT
    if nodes == 1 and not stopped and EXIT_PEER_LOST in codes:
        return EXIT_RETRY
    if len(codes) == processes and len(set(codes)) == 1:
        return codes[0]
    if stopped and set(codes) <= {EXIT_STOPPED, EXIT_PEER_LOST}:
        return EXIT_STOPPED
    return status if status > 0 else EXIT_RETRY


def build_command(config: TrainConfig) -> list[str]:
    """torchrun's command line. Raises: InvalidParameters, PeerMissing."""
    where = ["--standalone"]
    if config.nodes > 1:
        index, leader = os.environ.get(_ENV_INDEX, ""), os.environ.get(ENV_LEADER, "")
        host, _, port = leader.rpartition(":")
        if not index.isdecimal() or not host:
            text = f"The run has {config.nodes} nodes, but {_ENV_INDEX} is {index!r} and {ENV_LEADER} is {leader!r}."
            raise InvalidParameters(text, "The operator sets the latter in every Job with several nodes.")
        address = find_address(host, time.monotonic() + _MEETING_SECONDS)
        where = [
            *("--nnodes", str(config.nodes), "--node-rank", index),
            *("--master-addr", address, "--master-port", port),
            *("--rdzv-conf", f"timeout={_MEETING_SECONDS}"),
        ]
    return [
        *(sys.executable, "-m", "torch.distributed.run", *where),
        *("--nproc-per-node", str(max(1, config.gpus)), "--max-restarts", "0"),
        *("--shutdown-timeout", str(_STOP_SECONDS), "-m", "codetune_trainer", "train"),
    ]


def find_address(host: str, until: float) -> str:
    """What to call a pod, which has a name only once it has started: that name, or its address without DNS.

    Args:
        host: Its name under the run's headless Service.
        until: When to give up, on the monotonic clock.

    Raises:
        PeerMissing: It has none in time.
    """
    told = False
    while True:
        try:
            found = _look_up(host)
        except OSError as error:
            if not told:
                print(f"Waiting for the address of the run's pod with index 0, {host}: {error}", flush=True)
                told = True
            if time.monotonic() >= until:
                text = f"The pod {host} of this run has no address after {_MEETING_SECONDS} s: {error}"
                raise PeerMissing(text, "Look at the pod with index 0.") from error
        else:
            if told:
                print(f"{host} has an address now.", flush=True)
            return found
        time.sleep(_LOOK_SECONDS)


def _look_up(host: str) -> str:
    """Raises: OSError."""
    if hosts := os.environ.get(ENV_HOSTS):
        for line in Path(hosts).read_text(encoding="utf-8").splitlines():
            address, *names = line.split()
            if host in names:
                return address
        raise OSError(f"{hosts} does not name it")
    socket.getaddrinfo(host, None)
    return host
