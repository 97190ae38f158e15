"""All controllers of the local cluster, started together."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from codetune_local.controllers.claims import ClaimKeeper
from codetune_local.controllers.garbage import GarbageCollector
from codetune_local.controllers.housekeeping import expire_events, pod_collector, serviceaccount_controller
from codetune_local.controllers.job_controller import job_controller
from codetune_local.controllers.job_retrying import RetryDelay
from codetune_local.controllers.namespaces import namespace_controller
from codetune_local.controllers.proxying import ServiceProxy
from codetune_local.controllers.service_controller import service_controller
from codetune_local.controllers.workload_controllers import deployment_controller, replicaset_controller
from codetune_local.kubelet.addressing import SERVICE_NETWORK, AddressPool, has_whole_loopback
from codetune_local.kubelet.scheduler import Scheduler
from codetune_local.kubelet.settings import NODE_NAME
from codetune_local.machinery.client import Client
from codetune_local.machinery.looping import run_controller
from codetune_local.machinery.recording import Recorder


@dataclass(frozen=True)
class ControllerSettings:
    """What can be set about the controllers."""

    job_retry: RetryDelay = field(default_factory=RetryDelay)
    node_name: str = NODE_NAME


async def run_controllers(client: Client, state: Path, settings: ControllerSettings) -> None:
    """Run all of them until cancelled. Raises: ApiError at the start."""
    addresses = AddressPool(SERVICE_NETWORK, state / "service-addresses.json", shared=not has_whole_loopback())
    claims = ClaimKeeper(client, state / "claims", Recorder(client, "persistentvolume-controller"))
    proxy = ServiceProxy(client, Recorder(client, "service-proxy"))
    await claims.ensure_class()
    loops = [
        serviceaccount_controller(client),
        pod_collector(client),
        namespace_controller(client),
        job_controller(client, settings.job_retry),
        replicaset_controller(client),
        deployment_controller(client),
        service_controller(client, addresses),
        proxy.controller(),
        *claims.controllers(),
        Scheduler(client, settings.node_name, Recorder(client, "default-scheduler")).controller(),
    ]
    try:
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(run_controller(loop, client), name=loop.name)
            group.create_task(GarbageCollector(client).run(), name="garbage")
            group.create_task(expire_events(client), name="events")
    finally:
        proxy.close()
