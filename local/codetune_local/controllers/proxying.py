"""Services on the wire: a TCP listener at each Service's address, connections handed round to its ready pods.

A Service without a ready pod has no listener, so that callers are refused as by a real cluster.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from codetune_local.controllers.endpoints import SERVICE_LABEL
from codetune_local.kubelet.addressing import SHARED_ADDRESS
from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.client import Client
from codetune_local.machinery.looping import Controller, itself
from codetune_local.machinery.objects import Key, Obj, labels_of, namespace_of
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder

logger = logging.getLogger(__name__)
Address = tuple[str, int]
CONNECT_SECONDS = 5.0
RETRY_BIND = 5.0
"""Seconds before an address that could not be listened on is tried again."""
_CHUNK_BYTES = 64 * 1024


def find_routes(service: Obj, slices: list[Obj]) -> dict[Address, list[Address]]:
    """Listening address → addresses of ready pods. Pure."""
    spec = service["spec"]
    cluster_ip = spec.get("clusterIP")
    if cluster_ip in (None, "", "None") or spec.get("type") == "ExternalName":
        return {}
    routes: dict[Address, list[Address]] = {}
    for port in spec.get("ports") or []:
        if port.get("protocol", "TCP") != "TCP":
            continue
        ready = _ready_addresses(slices, port.get("name", ""))
        routes[(cluster_ip, port["port"])] = ready
        if spec.get("type") in ("NodePort", "LoadBalancer") and port.get("nodePort"):
            routes[(SHARED_ADDRESS, port["nodePort"])] = ready
    # Where everything shares 127.0.0.1 a pod may listen on the very address of its Service: nothing to do then.
    return {listen: ready for listen, ready in routes.items() if listen not in ready}


def _ready_addresses(slices: list[Obj], port_name: str) -> list[Address]:
    found = []
    for part in slices:
        number = next((port["port"] for port in part.get("ports") or [] if port.get("name", "") == port_name), None)
        if number is None:
            continue
        for endpoint in part.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True):
                found += [(address, number) for address in endpoint["addresses"]]
    return sorted(found)


@dataclass
class _Listener:
    server: asyncio.Server
    targets: list[Address]
    turn: int = 0


@dataclass
class ServiceProxy:
    """Keeps the listeners of all Services."""

    client: Client
    recorder: Recorder
    _listeners: dict[Address, _Listener] = field(default_factory=dict)
    _by_service: dict[Key, set[Address]] = field(default_factory=dict)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def controller(self) -> Controller:
        """The loop."""
        triggers = {"services": itself, "endpointslices.discovery.k8s.io": _service_of}
        return Controller("service-proxy", triggers, self.reconcile)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the listeners of one Service up to date."""
        namespace, name = key
        service = await get_or_none(self.client, "services", name, namespace)
        routes: Mapping[Address, list[Address]] = {}
        if service is not None:
            slices = await self.client.list("endpointslices.discovery.k8s.io", namespace, {SERVICE_LABEL: name})
            routes = {listen: targets for listen, targets in find_routes(service, slices).items() if targets}
        mine = self._by_service.setdefault(key, set())
        for listen in mine - set(routes):
            await self._close(listen)
            mine.discard(listen)
        retry = None
        for listen, targets in routes.items():
            if listen in mine:
                self._listeners[listen].targets = targets
            elif await self._open(listen, targets, service):
                mine.add(listen)
            else:
                retry = RETRY_BIND
        if not mine and service is None:
            del self._by_service[key]
        return retry

    async def _open(self, listen: Address, targets: list[Address], service: Obj | None) -> bool:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(listen, reader, writer)

        try:
            server = await asyncio.start_server(accept, *listen, limit=_CHUNK_BYTES)
        except OSError as error:
            logger.warning("Service address %s:%d cannot be listened on: %s", *listen, error.strerror)
            if service is not None:
                text = f"Cannot listen on {listen[0]}:{listen[1]}: {error.strerror}. {_advise(listen, error)}"
                await self.recorder.record(Announcement(service, "ListenFailed", text, "Warning"))
            return False
        self._listeners[listen] = _Listener(server, targets)
        return True

    async def _close(self, listen: Address) -> None:
        self._listeners.pop(listen).server.close()  # connections that are open go on

    async def _serve(self, listen: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            upstream = await self._connect(listen)
            if upstream is None:
                writer.transport.abort()
                return
            await _join((reader, writer), upstream)
        finally:
            self._connections.discard(task)

    async def _connect(self, listen: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next pod that takes the connection; each one is tried once."""
        listener = self._listeners.get(listen)
        targets = list(listener.targets) if listener else []
        for _ in targets:
            assert listener is not None
            listener.turn += 1
            target = targets[listener.turn % len(targets)]
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await asyncio.open_connection(*target, limit=_CHUNK_BYTES)
            except (OSError, TimeoutError) as error:
                logger.debug("%s:%d did not take a connection: %s", *target, error)
        return None

    def close(self) -> None:
        """Stop listening and cut what is open."""
        for listener in self._listeners.values():
            listener.server.close()
        for task in self._connections:
            task.cancel()


def _advise(listen: Address, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "Ports below 1024 are reserved for root on this machine: use a higher spec.ports[].port."
    if listen[0] != SHARED_ADDRESS:
        return "Another process uses this address and port."
    return "This machine has only one loopback address, so that each Service and pod needs a port of its own."


def _service_of(found: Obj) -> list[Key]:
    name = labels_of(found).get(SERVICE_LABEL)
    return [(namespace_of(found), name)] if name else []


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(one: Stream, other: Stream) -> None:
    """Copy both ways until both sides have finished; a broken side ends the other."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(one[0], other[1]))
            group.create_task(_copy(other[0], one[1]))
    except* OSError:
        for _, writer in (one, other):
            writer.transport.abort()
    finally:
        for _, writer in (one, other):
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
