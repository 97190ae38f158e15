"""Starting the daemon in the background, waiting until it serves, and stopping it with everything it started."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from codetune_local.daemon.kubeconfig import read_kubeconfig
from codetune_local.daemon.state import StateError, StateFolder
from codetune_local.kubelet.shortpaths import remove_short_folder
from codetune_local.kubelet.sweeping import sweep

START_SECONDS = 60.0
STOP_SECONDS = 45.0
"""More than the longest grace that pods get when the cluster goes down."""
SWEEP_GRACE = 3.0
_STEP = 0.05


def start_in_background(state: StateFolder, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a daemon and wait until it serves; it outlives this process. Raises: StateError."""
    state.make()
    command = [sys.executable, "-m", "codetune_local.main", "local", "up", "--foreground", *arguments]
    descriptor = os.open(state.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(state, process.pid):
        if process.poll() is not None:
            raise StateError(f"the daemon stopped with status {process.returncode}: {_tail(state, begin)}")
        if time.monotonic() > deadline:
            process.kill()
            raise StateError(f"the daemon did not serve within {START_SECONDS:.0f} s: {_tail(state, begin)}")
        time.sleep(_STEP)
    return process


def is_ready(state: StateFolder, pid: int) -> bool:
    """Whether that daemon answers."""
    if state.daemon_pid() != pid:
        return False
    try:
        access = read_kubeconfig(state.kubeconfig)
        with urllib.request.urlopen(access.server + "/readyz", timeout=2, context=access.tls) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _tail(state: StateFolder, begin: int) -> str:
    with state.log.open("rb") as log:
        log.seek(begin)
        text = log.read().decode(errors="replace").strip()
    return f"{text.splitlines()[-1] if text else 'it said nothing'} (all of it is in {state.log})"


def stop(state: StateFolder) -> bool:
    """Stop daemon and pods; returns whether anything ran. Raises: StateError when the daemon does not end."""
    pid = state.daemon_pid()
    if pid is not None:
        _send(pid, signal.SIGTERM)
        if not _wait_until_gone(state, STOP_SECONDS):
            _send(pid, signal.SIGKILL)
            if not _wait_until_gone(state, SWEEP_GRACE):
                raise StateError(f"the daemon, process {pid}, does not end")
    descriptor = state.lock() if state.path.exists() else None
    try:
        left = sweep(state.path, SWEEP_GRACE)  # of a daemon that was killed
        remove_short_folder(state.path)
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return pid is not None or left > 0


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended in this moment


def _wait_until_gone(state: StateFolder, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while state.daemon_pid() is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP)
    return True
