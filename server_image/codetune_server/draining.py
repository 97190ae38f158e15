"""Leaving without a failed request: what a pod does between the news that it has to go and the signal.

`python -m codetune_server drain` is the container's preStop hook. From then on the pod is not ready and closes each
connection with its answer, so that clients go to another replica; the hook returns when no request is left. A server
that nobody can ask anything yet is ended by the hook itself.
"""

import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.types import Message, Send

from codetune_server.loading import end_process
from codetune_server.settings import ENV_ADAPTER_TOKEN_FILE, ENV_BIND_HOST

DRAIN = "/codetune/drain"
POLL_SECONDS = 0.5
_ANSWER_SECONDS = 10.0


class Traffic:
    """Requests in flight, and whether new ones are still invited; plain state."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.is_leaving = False

    def begin(self, send: Send) -> Send:
        """A request starts; returns the `send` that it has to use."""
        self.in_flight += 1
        return self._close_connection(send)

    def end(self) -> None:
        """A request has ended, well or not."""
        self.in_flight -= 1

    def _close_connection(self, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if self.is_leaving and message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        return closing


def drain(
    environment: Mapping[str, str],
    *,
    port: int,
    seconds: float,
    settle: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    scratch: Path | None = None,
) -> int:
    """Have the server of this container take its leave; returns the exit code.

    Args:
        environment: The container's variables.
        port: The server's port.
        seconds: Longest time to wait for requests that are under way.
        settle: Shortest time to wait: until every proxy has heard that this pod is going, requests still come in.
        sleep: Waits so many seconds.
        clock: Seconds that only grow.
        scratch: Where the server has noted its process; None: the folder of temporary files.
    """
    start = clock()
    host = environment.get(ENV_BIND_HOST, "127.0.0.1")
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{DRAIN}"
    while True:
        try:
            token = Path(environment.get(ENV_ADAPTER_TOKEN_FILE, "")).read_text().strip()
            left = _tell(url, token)
        except (OSError, ValueError, KeyError) as error:
            # It never came up, or is gone by now: nobody is to be waited for.
            ended = _is_refused(error) and end_process(scratch or Path(tempfile.gettempdir()))
            told = "; the server, which was loading, is ended" if ended else ""
            print(f"codetune-server: nothing to drain: {error}{told}", file=sys.stderr)
            return 0
        waited = clock() - start
        if (left <= 0 and waited >= settle) or waited >= seconds:
            print(f"codetune-server: drained in {waited:.1f} s, {left} requests are left", file=sys.stderr)
            return 0
        sleep(POLL_SECONDS)


def _is_refused(error: Exception) -> bool:
    """Whether an attempt failed because nobody listens, and not because an answer was late or another one."""
    return isinstance(error, urllib.error.URLError) and isinstance(error.reason, ConnectionRefusedError)


def _tell(url: str, token: str) -> int:
    """Announce the end; returns how many requests are under way. Raises: OSError, ValueError, KeyError."""
    request = urllib.request.Request(url, method="PUT", headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWER_SECONDS) as answer:
        return int(json.load(answer)["inFlight"])
