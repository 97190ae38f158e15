"""The API server alone, in a thread of a test: no controllers, no pods, so nothing changes but what the test changes.

`codetune_local.daemon.trial.cluster` is the whole cluster; this is its API server and the quicker of the two.
"""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from codetune_local.apiserver.access.authorizing import Tokens
from codetune_local.apiserver.access.certificates import server_context
from codetune_local.apiserver.app import PodRuntime, build_app
from codetune_local.apiserver.app import serve as listen
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry
from codetune_local.daemon.kubeconfig import write_kubeconfig
from codetune_local.inprocess import Client

Beside = Callable[[Client], Coroutine[Any, Any, None]]
START_SECONDS = 30.0


class NoPods:
    """The runtime of a server without a kubelet."""

    async def read_log(
        self,
        pod: dict[str, Any],
        container: str,
        *,
        follow: bool,
        previous: bool,
        since_time: datetime | None,
        timestamps: bool,
        tail_lines: int | None,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        """Raises: ApiError, always."""
        name = pod["metadata"]["name"]
        raise ApiError(
            400, "BadRequest", f'container "{container}" in pod "{name}" is waiting to start: no kubelet runs'
        )
        yield b""


@contextmanager
def serve(
    registry: Registry | None = None, *, runtime: PodRuntime | None = None, beside: Beside | None = None
) -> Iterator[Path]:
    """Serve the Kubernetes API on loopback for as long as the context lasts; yields the path of an admin's kubeconfig.

    Args:
        registry: What to serve; left out, a fresh one in memory. It belongs to the server's thread while it is served.
        runtime: Answers `pods/log`; left out, no pod has a log.
        beside: Runs on the server's event loop until the end: the place for controllers.
    """
    with tempfile.TemporaryDirectory(prefix="codetune-api-") as folder:
        thread = _Serving(Path(folder), registry, runtime or NoPods(), beside)
        thread.start()
        try:
            yield thread.wait_until_ready()
        finally:
            thread.stop()


class _Serving(threading.Thread):
    """An event loop of its own."""

    def __init__(self, folder: Path, registry: Registry | None, runtime: PodRuntime, beside: Beside | None) -> None:
        super().__init__(name="codetune-api", daemon=True)
        self._folder = folder
        self._registry = registry
        self._runtime = runtime
        self._beside = beside
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    def wait_until_ready(self) -> Path:
        """The kubeconfig. Raises: RuntimeError when the server did not start."""
        if not self._ready.wait(START_SECONDS) or self._failure is not None:
            raise RuntimeError("the API server did not start") from self._failure
        return self._folder / "kubeconfig"

    def stop(self) -> None:
        """End the loop and wait for it. Raises: RuntimeError when something on the loop failed."""
        if self._loop is not None and self._end is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self.join(START_SECONDS)
        if self._failure is not None:
            raise RuntimeError("the API server failed while it ran") from self._failure

    def run(self) -> None:
        """The thread."""
        try:
            asyncio.run(self._serve())
        except Exception as error:  # told to the test by wait_until_ready() or stop()
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        registry = self._registry or Registry.open(None)
        tokens = Tokens(self._folder)
        context, authority = server_context(self._folder)
        runner, port = await listen(build_app(registry, tokens, self._runtime), 0, context)
        write_kubeconfig(self._folder / "kubeconfig", port, tokens.admin, authority)
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(self._end.wait())]
        if self._beside is not None:
            waiting.append(asyncio.create_task(self._beside(Client(registry))))
        self._ready.set()
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        transports = [found.transport for found in (runner.server.connections if runner.server else [])]
        await runner.cleanup()
        for transport in transports:  # a client that keeps its connection would hold up the end of TLS
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0.01)
        for task in done:
            task.result()
