"""The supervisor of one container: a small process of its own that outlives the kubelet.

It starts the container's command in a new session, writes its output line by line with a time each, and leaves the exit
status in a file. So neither output nor exit status is lost while no kubelet runs. It imports only the standard library
and is run as a file (`python -I -S shim.py`), which starts in milliseconds.

Its input is one JSON object on stdin (see `processes.Launch`); it answers with one line of JSON, once the command runs
or could not be started. In `folder` it leaves `started.json`, `exit.json` and `log` (the format of the CRI:
`TIME STREAM F|P TEXT`, where P is a part of a line that was longer than 16 KiB).
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

MAX_LINE = 16 * 1024
DRAIN_SECONDS = 2.0
"""How long output is still read after everything in the container was killed."""
CANNOT_START = 128
"""The exit code that container runtimes give when a command could not be started."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_IS_LINUX = sys.platform.startswith("linux")


def stamp(nanoseconds: int) -> str:
    """RFC 3339 with nine digits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def process_identity(pid: int) -> str:
    """What tells this process from a later one with the same number; empty where the kernel does not say."""
    if not _IS_LINUX:
        return ""
    try:
        with open("/proc/sys/kernel/random/boot_id") as boot, open(f"/proc/{pid}/stat") as stat:
            return boot.read().strip() + ":" + stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def write_json(path: str, content: dict[str, Any]) -> None:
    """Write a file that is seen whole or not at all."""
    with open(path + ".new", "w") as file:
        json.dump(content, file)
    os.replace(path + ".new", path)


class LogFile:
    """The container's log: times rise strictly, so that a reader can go on after the last line it saw."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._last = 0
        self._rests = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Take output as it comes."""
        *lines, rest = (self._rests[stream] + data).split(b"\n")
        entries = []
        for line in lines:
            entries += self._parts(stream, line, b"F")
        while len(rest) > MAX_LINE:
            entries.append(self._entry(stream, rest[:MAX_LINE], b"P"))
            rest = rest[MAX_LINE:]
        self._rests[stream] = rest
        self._append(b"".join(entries))

    def close(self) -> None:
        """Write what came without a newline at its end."""
        for stream, rest in self._rests.items():
            if rest:
                self._append(self._entry(stream, rest, b"P"))
        os.close(self._file)

    def _parts(self, stream: str, line: bytes, tag: bytes) -> list[bytes]:
        parts = []
        while len(line) > MAX_LINE:
            parts.append(self._entry(stream, line[:MAX_LINE], b"P"))
            line = line[MAX_LINE:]
        return [*parts, self._entry(stream, line, tag)]

    def _entry(self, stream: str, text: bytes, tag: bytes) -> bytes:
        # Rising by a microsecond, not a nanosecond: many clients keep no more digits than that.
        self._last = max(time.time_ns(), self._last + 1000)
        return b"%s %s %s %s\n" % (stamp(self._last).encode(), stream.encode(), tag, text)

    def _append(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            os.close(self._file)
            os.replace(self._path, self._path + ".1")
            self._open()
        try:
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError as error:  # a full disk must not end the container: the line is lost, as in a container runtime
            os.write(2, f"log: {error}\n".encode())


def main() -> None:
    """Start the container's command and stay with it; the caller gets its answer and goes on."""
    spec = json.load(sys.stdin)
    answer, report = os.pipe()
    if os.fork():
        os.close(report)
        with os.fdopen(answer) as lines:
            sys.stdout.write(lines.readline())
        sys.stdout.flush()
        os._exit(0)
    os.close(answer)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is the container that is asked to stop, and then this ends too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _detach_standard_streams()
    supervise(spec, report)
    os._exit(0)


def _detach_standard_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def supervise(spec: dict[str, Any], report: int) -> None:
    """Run the command to its end."""
    folder = spec["folder"]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    log = LogFile(os.path.join(folder, "log"), spec["log_max_bytes"])
    started_at = stamp(time.time_ns())
    pid, streams, problem = _spawn(spec)
    if problem:
        os.waitpid(pid, 0)
        write_json(
            os.path.join(folder, "exit.json"),
            {"exit_code": CANNOT_START, "reason": "StartError", "message": problem, "finished_at": started_at},
        )
        os.write(report, json.dumps({"error": problem}).encode() + b"\n")
        return
    started = {"pid": pid, "identity": process_identity(pid), "started_at": started_at, "shim_pid": os.getpid()}
    started["shim_identity"] = process_identity(os.getpid())
    write_json(os.path.join(folder, "started.json"), started)
    os.write(report, json.dumps(started).encode() + b"\n")
    os.close(report)
    status = _follow(pid, streams, log)
    finished_at = stamp(time.time_ns())
    kill_descendants(pid)
    _drain(streams, log)
    log.close()
    code = os.waitstatus_to_exitcode(status)
    result = {"exit_code": code if code >= 0 else 128 - code, "signal": max(0, -code), "finished_at": finished_at}
    write_json(os.path.join(folder, "exit.json"), result)


def _prctl(option: int, value: int) -> None:
    if _IS_LINUX:
        import ctypes  # only here: it takes as long to import as all the rest

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _spawn(spec: dict[str, Any]) -> tuple[int, dict[int, str], str]:
    """Returns pid, descriptor → stream name, and what was wrong (empty: the command runs)."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    problem_read, problem_write = os.pipe()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _become(spec, out_write, err_write, supervisor)
        except OSError as error:
            os.write(problem_write, f"exec: {spec['argv'][0]!r}: {error.strerror or error}".encode())
        except Exception as error:
            os.write(problem_write, f"{type(error).__name__}: {error}".encode())
        os._exit(CANNOT_START)
    for descriptor in (out_write, err_write, problem_write):
        os.close(descriptor)
    with os.fdopen(problem_read, "rb") as problems:  # ends when exec closes the other end
        problem = problems.read().decode(errors="replace")
    return pid, {out_read: "stdout", err_read: "stderr"}, problem


def _become(spec: dict[str, Any], out: int, err: int, supervisor: int) -> None:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(CANNOT_START)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if spec["cores"] and _IS_LINUX:
        os.sched_setaffinity(0, spec["cores"])
    os.chdir(spec["cwd"])
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])


def _follow(pid: int, streams: dict[int, str], log: LogFile) -> int:
    """Copy output until the command itself ends; returns its wait status."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        status = _reap(pid)
        if status is not None:
            return status
        ready, _, _ = select.select([*streams, wake_read], [], [], 5.0)
        for descriptor in ready:
            if descriptor == wake_read:
                os.read(wake_read, 4096)
            else:
                _copy(descriptor, streams, log)


def _copy(descriptor: int, streams: dict[int, str], log: LogFile) -> None:
    data = os.read(descriptor, 65536)
    if data:
        log.write(streams[descriptor], data)
    else:
        os.close(descriptor)
        del streams[descriptor]


def _reap(main_pid: int) -> int | None:
    """Collect every process that ended; returns the wait status of the main one once it did."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == main_pid:
            return status


def kill_descendants(main_pid: int) -> None:
    """End what the command left behind, also what went into a session of its own: like the end of a PID namespace."""
    deadline = time.monotonic() + DRAIN_SECONDS
    _kill(os.killpg, main_pid)
    while time.monotonic() < deadline:
        _reap(0)
        orphans = _children()
        if not orphans:
            return
        for pid in orphans:
            _kill(os.kill, pid)
        time.sleep(0.01)


def _kill(send: Callable[[int, int], None], target: int) -> None:
    try:
        send(target, signal.SIGKILL)
    except OSError:
        return  # it ended by itself


def _children() -> list[int]:
    """Processes whose parent is this one: orphans of the container come to it, because it is their subreaper."""
    if not _IS_LINUX:
        return []
    me, found = str(os.getpid()), []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = stat.read().rpartition(")")[2].split()[1]
            except OSError:
                continue  # it ended while this was looking
            if parent == me:
                found.append(int(entry))
    return found


def _drain(streams: dict[int, str], log: LogFile) -> None:
    deadline = time.monotonic() + DRAIN_SECONDS
    while streams and time.monotonic() < deadline:
        ready, _, _ = select.select(list(streams), [], [], 0.1)
        for descriptor in ready:
            _copy(descriptor, streams, log)


if __name__ == "__main__":
    main()
