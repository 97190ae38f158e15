"""Probes and lifecycle hooks: asking a container something over HTTP, TCP or by a command."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp

from codetune_local.machinery.objects import Obj

_MAX_OUTPUT = 1024


@dataclass(frozen=True)
class ProbeTarget:
    """The container that is asked."""

    pod_ip: str
    ports: Mapping[str, int]
    """Named container ports."""
    env: Mapping[str, str]
    cwd: str
    rewrite: Callable[[str], str]
    """Container paths → host paths, for commands."""


@dataclass(frozen=True)
class ProbeResult:
    """What came of asking once."""

    is_success: bool
    message: str = ""


async def ask(action: Obj, target: ProbeTarget, timeout: float) -> ProbeResult:
    """Run one probe or hook action; whatever goes wrong is a failed result."""
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in action:
                return await _ask_http(action["httpGet"], target)
            if "tcpSocket" in action:
                return await _ask_tcp(action["tcpSocket"], target)
            if "exec" in action:
                return await _run_command(action["exec"]["command"], target)
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return ProbeResult(True)
    except TimeoutError:
        return ProbeResult(False, f"timed out after {timeout:g} s (Client.Timeout exceeded)")
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return ProbeResult(False, str(error) or type(error).__name__)
    kinds = ", ".join(sorted(set(action) & {"grpc"})) or "an empty action"
    return ProbeResult(False, f"{kinds} is not offered by the local cluster: use httpGet, tcpSocket or exec")


def _port(value: int | str, target: ProbeTarget) -> int:
    if isinstance(value, int) or value.isdecimal():
        return int(value)
    if value not in target.ports:
        raise ValueError(f"the container has no port named {value!r}")
    return target.ports[value]


async def _ask_http(get: Obj, target: ProbeTarget) -> ProbeResult:
    host = get.get("host") or target.pod_ip
    scheme = (get.get("scheme") or "HTTP").lower()
    path = get.get("path") or "/"
    url = f"{scheme}://{host}:{_port(get['port'], target)}/{path.lstrip('/')}"
    headers = {header["name"]: header["value"] for header in get.get("httpHeaders") or []}
    headers.setdefault("User-Agent", "kube-probe/1.36")
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer,
    ):
        if 200 <= answer.status < 400:
            return ProbeResult(True)
        return ProbeResult(False, f"HTTP probe failed with statuscode: {answer.status}")


async def _ask_tcp(check: Obj, target: ProbeTarget) -> ProbeResult:
    host = check.get("host") or target.pod_ip
    _, writer = await asyncio.open_connection(host, _port(check["port"], target))
    writer.close()
    return ProbeResult(True)


async def _run_command(command: list[str], target: ProbeTarget) -> ProbeResult:
    process = await asyncio.create_subprocess_exec(
        *(target.rewrite(word) for word in command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(target.env),
        cwd=target.cwd,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:  # timed out or cancelled: nothing of it may stay
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    text = output.decode(errors="replace").strip()[-_MAX_OUTPUT:]
    return ProbeResult(process.returncode == 0, text or f"command exited with {process.returncode}")


class Prober:
    """Repeats one probe and calls back when its verdict changes."""

    def __init__(self, probe: Obj, target: ProbeTarget, report: Callable[[bool, str], None]) -> None:
        """`report(is_success, message)` is called after `successThreshold` or `failureThreshold` answers in a row."""
        self._probe = probe
        self._target = target
        self._report = report

    async def run(self, *, until_success: bool = False) -> None:
        """Ask until cancelled, or until the first success (startup probes)."""
        probe = self._probe
        await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
        successes = failures = 0
        while True:
            result = await ask(probe, self._target, probe.get("timeoutSeconds") or 1)
            if result.is_success:
                successes, failures = successes + 1, 0
                if successes >= (probe.get("successThreshold") or 1):
                    self._report(True, "")
                    if until_success:
                        return
            else:
                successes, failures = 0, failures + 1
                if failures >= (probe.get("failureThreshold") or 3):
                    self._report(False, result.message)
            await asyncio.sleep(probe.get("periodSeconds") or 10)
