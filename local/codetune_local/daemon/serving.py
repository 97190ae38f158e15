"""The daemon itself: API server, controllers and kubelet on one event loop, until it is told to stop."""

import asyncio
import logging
import signal
import socket
import ssl
import sys
from dataclasses import dataclass

from aiohttp import web

from codetune_local.apiserver.access.authorizing import Tokens
from codetune_local.apiserver.access.certificates import server_context
from codetune_local.apiserver.app import build_app, serve
from codetune_local.apiserver.registry import Registry
from codetune_local.controllers.job_retrying import RetryDelay
from codetune_local.controllers.manager import ControllerSettings, run_controllers
from codetune_local.daemon.kubeconfig import write_kubeconfig
from codetune_local.daemon.state import StateError, StateFolder
from codetune_local.inprocess import Client
from codetune_local.kubelet.addressing import has_whole_loopback
from codetune_local.kubelet.kubelet import Kubelet
from codetune_local.kubelet.planning import Backoff
from codetune_local.kubelet.settings import KubeletSettings
from codetune_local.machinery.client import ApiError

logger = logging.getLogger(__name__)
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True)
class DaemonOptions:
    """What `codetune local up` can be told."""

    gpus: int = 0
    port: int = 0
    """0: the one of last time, or any."""
    job_backoff: float = 10.0
    """Seconds before the first replacement of a Job's failed pod."""
    restart_backoff: float = 10.0
    """Seconds before the second restart of a crashing container."""


def serve_until_stopped(state: StateFolder, options: DaemonOptions) -> int:
    """Run the cluster in this process until SIGTERM or Ctrl-C; returns the exit status. Raises: StateError."""
    state.lock()
    text = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=text, stream=sys.stderr)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    asyncio.run(_run(state, options))
    return 0


async def _run(state: StateFolder, options: DaemonOptions) -> None:
    registry = Registry.open(state.database)
    client, tokens = Client(registry), Tokens(state.path)
    await _ensure_namespaces(client)
    backoff = Backoff(base=options.restart_backoff)
    kubelet = Kubelet(client, state.path, KubeletSettings(gpus=options.gpus, restart_backoff=backoff))
    tls, authority = server_context(state.path)
    runner, port = await _listen(state, options.port, build_app(registry, tokens, kubelet), tls)
    try:
        write_kubeconfig(state.kubeconfig, port, tokens.admin, authority)
        controllers = run_controllers(client, state.path, ControllerSettings(RetryDelay(base=options.job_backoff)))
        await _run_until_signal(state, port, kubelet, asyncio.create_task(controllers))
    finally:
        await runner.cleanup()
        registry.storage.close()


async def _run_until_signal(state: StateFolder, port: int, kubelet: Kubelet, controllers: "asyncio.Task[None]") -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    node = asyncio.create_task(kubelet.run())
    stopped = asyncio.create_task(stop.wait())
    state.announce_daemon(port)
    logger.info("Serving on https://127.0.0.1:%d; KUBECONFIG=%s", port, state.kubeconfig)
    if not has_whole_loopback():
        logger.warning("This machine has only 127.0.0.1: all pods and Services share it, and each needs its own port")
    await asyncio.wait({node, controllers, stopped}, return_when=asyncio.FIRST_COMPLETED)
    logger.info("Stopping all pods")
    for task in (controllers, node, stopped):  # first who would replace the pods, then who runs them
        task.cancel()
    results = await asyncio.gather(controllers, node, stopped, return_exceptions=True)
    await kubelet.shut_down()
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _listen(
    state: StateFolder, port: int, app: web.Application, tls: ssl.SSLContext
) -> tuple[web.AppRunner, int]:
    """Serve on the port asked for, that of last time, or any; it is kept, so that a kubeconfig stays right."""
    known = state.read_settings()
    wanted = port or known.get("port") or _free_port()
    try:
        runner, bound = await serve(app, wanted, tls)
    except OSError as error:
        raise StateError(
            f"port {wanted} of 127.0.0.1 can't be used: {error.strerror}; give another with --port"
        ) from error
    state.write_settings({**known, "port": bound})
    return runner, bound


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def _ensure_namespaces(client: Client) -> None:
    for name in SYSTEM_NAMESPACES:
        try:
            await client.create("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
