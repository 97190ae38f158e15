"""The end of a server that has not come up yet: while vLLM loads, it may lose the signal that tells it to go.

Its handler raises KeyboardInterrupt, and what it interrupts may swallow that; the pod would then load on, serve nobody
and hold its GPUs until the grace period is over. There is no request to be lost, so the preStop hook ends it for good.
"""

import os
import signal
from pathlib import Path

_NAME = "codetune-server.pid"
_OURS = b"codetune_server"


def note_process(folder: Path) -> None:
    """Write down which process is the server: this one, also after it has become vLLM. Raises: OSError."""
    (folder / _NAME).write_text(str(os.getpid()))


def end_process(folder: Path) -> bool:
    """Kill the noted process. Returns: whether there was one."""
    try:
        pid = int((folder / _NAME).read_text())
        # Whoever has the number now: vLLM's command line names our middleware.
        if _OURS not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        return False
    return True
