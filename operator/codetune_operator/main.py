"""The operator's command line and process: settings, connection, watches, a clean stop on SIGTERM."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import kopf

from codetune_operator.cluster.connecting import Cluster, connect
from codetune_operator.cluster.leading import Candidate
from codetune_operator.cluster.listing import PAGE
from codetune_operator.electing import StandbyProbes, run_elected
from codetune_operator.errors import LeadLostError, OperatorError
from codetune_operator.handlers.watching import Watcher, register, select
from codetune_operator.metrics.exposing import Exposition
from codetune_operator.runtime import Runtime, start
from codetune_operator.settings import Settings, load_settings

logger = logging.getLogger(__name__)

_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
ENV_POD_IP = "POD_IP"
"""The pod's first address, as its kubelet probes it; the chart sets it."""
LIVENESS_PORT = 8080
METRICS_PORT = 8081
_IDENTITY: Any = "codetune-operator"
"""For kopf, which would ask for the name of the account: a pod may run as a user whom its image has no name for."""
_TOKEN_SECONDS = 300
"""How long kopf may use a token before it asks for it again: a ServiceAccount's token is renewed on disk."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until it is told to stop. Returns: the exit code."""
    options = _parse(arguments)
    try:
        settings = load_settings(options.settings) if options.settings else Settings()
        if options.namespace:
            settings = settings.model_copy(update={"namespaces": options.namespace})
        _configure_logging(settings)
        cluster = connect(options.kubeconfig)
        liveness = options.liveness or liveness_url(os.environ)
        metrics = options.metrics or metrics_url(os.environ)
        asyncio.run(run(cluster, settings, liveness=liveness, metrics=metrics, identity=options.elect))
    except OperatorError as error:
        _tell(error)
        return 1
    return 0


async def run(
    cluster: Cluster,
    settings: Settings,
    *,
    liveness: str | None = None,
    metrics: str | None = None,
    identity: str | None = None,
) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        cluster: Where.
        settings: The administrator's decisions.
        liveness: URL to answer liveness probes at, e.g. `http://10.0.0.7:8080/healthz`; None: nowhere.
        metrics: URL to answer Prometheus' scrapes at, e.g. `http://10.0.0.7:8081/metrics`; None: nowhere.
        identity: What tells it from other operators, of which one at a time works; None: it works in any case. Where
            it may be another one's turn, the process ends there and then, with exit code 1.

    Raises:
        OperatorError: The API server refuses what the operator cannot do without.
    """
    probes, exposition = StandbyProbes(liveness), Exposition()
    cluster = replace(cluster, count=exposition.counts.count_request)
    work = partial(_run_on, cluster, settings, liveness, probes, exposition)
    with exposition.listen(metrics):
        if identity is None:
            await work()
            return
        try:
            await run_elected(Candidate(cluster, namespace=settings.namespace, identity=identity), work, probes)
        except LeadLostError as error:
            # No clean end: that would wait for looks and requests that are under way, and for kopf's own tasks.
            _tell(error)
            os._exit(1)


async def _run_on(
    cluster: Cluster, settings: Settings, liveness: str | None, probes: StandbyProbes, exposition: Exposition
) -> None:
    while await _run_once(cluster, settings, liveness, probes, exposition):
        # kopf leaves its handlers behind: until it listens again, a signal ends the process by itself.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)
        logger.info("Other namespaces can be read than before; the watches begin anew.")


async def _run_once(
    cluster: Cluster, settings: Settings, liveness: str | None, probes: StandbyProbes, exposition: Exposition
) -> bool:
    """Returns: whether to go on, with the namespaces that can be read now."""
    runtime = await start(cluster, settings, exposition)
    changed, namespaces = runtime.resync.changed, [ns for ns in settings.namespaces if ns not in runtime.resync.refused]
    again = False

    async def stop(**_: Any) -> None:
        nonlocal again
        again = changed.is_set()
        await runtime.stop()
        # Whatever still waits for the flag would hold up kopf's end for 5 s.
        changed.set()

    try:
        logger.info("codetune-operator %s reconciles %s.", version("codetune-operator"), _say_scope(namespaces))
        await probes.close()
        await kopf.operator(
            registry=_build_registry(cluster, runtime, settings, stop),
            settings=_build_kopf_settings(settings),
            standalone=True,
            identity=_IDENTITY,
            clusterwide=not namespaces,
            namespaces=namespaces,
            liveness_endpoint=liveness,
            stop_flag=changed,
        )
    finally:
        await runtime.stop()
    return again


class _Backoffs:
    """Seconds between kopf's attempts, without an end: kopf takes any iterable for them, and ends altogether after the
    last attempt at a watch that is refused, though it be that of one namespace out of many. `Resync` leaves such a
    namespace out, with the cure in the log."""

    def __iter__(self) -> Iterator[float]:
        return chain((1, 1, 2, 3, 5, 8, 13, 21), repeat(60))


def liveness_url(environment: Mapping[str, str]) -> str | None:
    """Where a pod answers its probes: at its own address, of whichever family; None outside of a pod."""
    return _own_url(environment, LIVENESS_PORT, "/healthz")


def metrics_url(environment: Mapping[str, str]) -> str | None:
    """Where a pod answers Prometheus' scrapes: at its own address too; None outside of a pod."""
    return _own_url(environment, METRICS_PORT, "/metrics")


def _own_url(environment: Mapping[str, str], port: int, path: str) -> str | None:
    address = environment.get(ENV_POD_IP)
    if not address:
        return None
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}{path}"


def _tell(error: OperatorError) -> None:
    print(f"codetune-operator: {error}", file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m codetune_operator", description="Reconciles Projects, FineTunes, ModelDeployments and Teams."
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="settings as YAML; without it, the defaults")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="without it: the pod's own ServiceAccount")
    parser.add_argument(
        "--namespace", action="append", default=[], metavar="NS", help="only this namespace; may be repeated"
    )
    parser.add_argument(
        "--liveness", metavar="URL", help=f"answer probes here; without it: at port {LIVENESS_PORT} of ${ENV_POD_IP}"
    )
    parser.add_argument(
        "--metrics",
        metavar="URL",
        help=f"answer scrapes of Prometheus here; without it: at port {METRICS_PORT} of ${ENV_POD_IP}",
    )
    parser.add_argument(
        "--elect",
        metavar="IDENTITY",
        type=_identity,
        help="of several operators only one works, the one that holds a Lease, and the others stand by for it; "
        "a name that no other one has, such as the pod's; without it: works in any case",
    )
    parser.add_argument("--version", action="version", version=f"codetune-operator {version('codetune-operator')}")
    return parser.parse_args(arguments)


def _identity(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an operator without a name can't hold a Lease")
    return text


def _configure_logging(settings: Settings) -> None:
    if settings.log_format == "json":
        kopf.configure(log_format=kopf.LogFormat.JSON)
    else:
        logging.basicConfig(format=_TEXT_FORMAT, level=logging.INFO, force=True)
    # Of aiohttp: one line for each probe of the kubelet, which is all that a log would hold.
    for name in ("kopf.objects", "kopf.activities", "kopf._core.engines.activities", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _say_scope(namespaces: Sequence[str]) -> str:
    return f"the namespaces {', '.join(namespaces)}" if namespaces else "all namespaces"


def _build_registry(
    cluster: Cluster, runtime: Runtime, settings: Settings, stop: Callable[..., Coroutine[Any, Any, None]]
) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection_info(cluster)

    def watcher() -> Watcher:
        return runtime.watcher

    kopf.on.login(registry=registry, id="login")(login)
    # Before kopf itself ends: it cancels whatever still runs 5 s later, looks that are under way included.
    kopf.on.cleanup(registry=registry, id="stop")(stop)
    register(registry, watcher, nodes=not settings.namespaces)
    return registry


def _connection_info(cluster: Cluster) -> kopf.ConnectionInfo:
    """The same address and credentials for kopf's own client."""
    configuration = cluster.configuration
    scheme, _, token = (configuration.get_api_key_with_prefix("BearerToken", "authorization") or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert or None,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file or None,
        private_key_path=configuration.key_file or None,
        expiration=datetime.now(UTC) + timedelta(seconds=_TOKEN_SECONDS),
    )


def _build_kopf_settings(settings: Settings) -> kopf.OperatorSettings:
    built = kopf.OperatorSettings()
    # Our Events are about what a person wants to see, not about handlers.
    built.posting.enabled = False
    # With named namespaces the operator may not list and watch namespaces and CRDs.
    built.scanning.disabled = bool(settings.namespaces)
    if settings.namespaces:
        built.networking.error_backoffs = _Backoffs()
    # A connection that died without a word is noticed.
    built.watching.server_timeout = 270
    built.watching.client_timeout = 300
    built.watching.chunk_size = PAGE
    select(built)
    return built
