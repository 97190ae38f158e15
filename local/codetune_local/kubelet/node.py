"""The Node object: what this machine has, and that it is alive. Building it is pure; the rest writes it."""

import asyncio
import platform
from datetime import datetime

import psutil  # type: ignore[import-untyped]  # publishes no type information

from codetune_local.kubelet.devices import usable_cores
from codetune_local.kubelet.settings import GPU_RESOURCE, HOST_IP, KubeletSettings
from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.executing import modify, write_status
from codetune_local.machinery.objects import Obj, set_condition, uid_of
from codetune_local.machinery.times import Clock, format_micro_time, format_time

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
MAX_PODS = 250
_PRESSURES = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}


def measure_capacity(gpus: int) -> dict[str, str]:
    """What this machine has, as a ResourceList."""
    capacity = {
        "cpu": str(len(usable_cores())),
        "memory": f"{psutil.virtual_memory().total // 1024}Ki",
        "ephemeral-storage": f"{psutil.disk_usage('/').total // 1024}Ki",
        "pods": str(MAX_PODS),
    }
    return capacity | ({GPU_RESOURCE: str(gpus)} if gpus else {})


def build_node(settings: KubeletSettings) -> Obj:
    """The Node object as it is created."""
    labels = {
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": platform.system().lower(),
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "codetune.dev/local": "true",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": settings.node_name, "labels": labels}, "spec": {}}


def build_node_status(node: Obj, capacity: dict[str, str], now: datetime, *, is_ready: bool) -> Obj:
    """Status with these amounts; resources that somebody else advertised on the node are kept."""
    old = node.get("status") or {}
    reason, message = ("KubeletReady", "kubelet is posting ready status")
    if not is_ready:
        reason, message = ("KubeletStopped", "the local cluster was stopped")
    conditions: list[Obj] = old.get("conditions") or []
    beat = {"lastHeartbeatTime": format_time(now)}
    for kind, (why, text) in _PRESSURES.items():
        conditions = set_condition(conditions, kind, "False", now=now, reason=why, message=text, **beat)
    status = "True" if is_ready else "False"
    conditions = set_condition(conditions, "Ready", status, now=now, reason=reason, message=message, **beat)
    return {
        "capacity": {**(old.get("capacity") or {}), **capacity},
        "allocatable": {**(old.get("allocatable") or {}), **capacity},
        "conditions": conditions,
        "addresses": [
            {"type": "InternalIP", "address": HOST_IP},
            {"type": "Hostname", "address": node["metadata"]["name"]},
        ],
        "nodeInfo": _node_info(),
    }


def _node_info() -> dict[str, str]:
    return {
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
        "kernelVersion": platform.release(),
        "osImage": platform.platform(terse=True),
        "containerRuntimeVersion": f"process://{platform.python_version()}",
        "kubeletVersion": "v1.36.0+codetune-local",
        "kubeProxyVersion": "",
        "operatingSystem": platform.system().lower(),
        "architecture": platform.machine(),
    }


class NodeKeeper:
    """Registers the node and keeps it alive."""

    def __init__(self, client: Client, settings: KubeletSettings, clock: Clock) -> None:
        self._client = client
        self._settings = settings
        self._clock = clock

    async def register(self) -> None:
        """Create the node, or bring it up to date with this machine. Raises: ApiError."""
        await _ensure(self._client, "nodes", build_node(self._settings))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASE_NAMESPACE}}
        await _ensure(self._client, "namespaces", namespace)
        await self._write(is_ready=True, fresh=True)
        await self._renew_lease()

    async def run(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            await asyncio.sleep(self._settings.heartbeat)
            await self._renew_lease()

    async def say_stopped(self) -> None:
        """The last word: not ready any more. Raises: ApiError."""
        await self._write(is_ready=False, fresh=False)

    async def _write(self, *, is_ready: bool, fresh: bool) -> None:
        node = await self._client.get("nodes", self._settings.node_name)
        capacity = measure_capacity(self._settings.gpus)

        def make(current: Obj) -> Obj:
            status = build_node_status(current, capacity, self._clock(), is_ready=is_ready)
            if fresh and not self._settings.gpus:  # --gpus was given before and is not now
                for amounts in (status["capacity"], status["allocatable"]):
                    amounts.pop(GPU_RESOURCE, None)
            return status

        await write_status(self._client, "nodes", "", self._settings.node_name, uid_of(node), make)

    async def _renew_lease(self) -> None:
        spec = {
            "holderIdentity": self._settings.node_name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": format_micro_time(self._clock()),
        }
        metadata = {"name": self._settings.node_name, "namespace": LEASE_NAMESPACE}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        current = await _ensure(self._client, "leases.coordination.k8s.io", lease)

        def change(obj: Obj) -> Obj:
            return {**obj, "spec": {**obj.get("spec", {}), **spec}}

        key = LEASE_NAMESPACE, self._settings.node_name, uid_of(current)
        await modify(self._client, "leases.coordination.k8s.io", *key, change)


async def _ensure(client: Client, resource: str, obj: Obj) -> Obj:
    try:
        return await client.get(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
    except ApiError as error:
        if error.code != 404:
            raise
    return await client.create(resource, obj)
