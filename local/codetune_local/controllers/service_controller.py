"""The loop for Services: their addresses, their EndpointSlices."""

import random
from collections.abc import Sequence

from codetune_local.controllers.endpoints import MANAGED_LABEL, MANAGER, SERVICE_LABEL, build_endpoint_slices
from codetune_local.kubelet.addressing import AddressPool
from codetune_local.machinery.actions import Create
from codetune_local.machinery.client import Client
from codetune_local.machinery.executing import delete_if_same, execute_action, write_status
from codetune_local.machinery.looping import Controller, itself
from codetune_local.machinery.objects import Key, Obj, is_being_deleted, labels_of, name_of, namespace_of, uid_of
from codetune_local.machinery.reading import get_or_none
from codetune_local.machinery.recording import Recorder

NODE_PORTS = range(30000, 32768)
SLICES = "endpointslices.discovery.k8s.io"
ALL_SERVICES: Key = ("", "*")


def service_controller(client: Client, addresses: AddressPool) -> Controller:
    """Gives each Service an address and keeps its EndpointSlices."""
    recorder = Recorder(client, "service-controller")

    async def reconcile(key: Key) -> float | None:
        namespace, name = key
        if name == ALL_SERVICES[1]:
            for service in await client.list("services", namespace):
                await _reconcile_service(client, recorder, service, addresses)
            return None
        found = await get_or_none(client, "services", name, namespace)
        if found is not None and not is_being_deleted(found):
            await _reconcile_service(client, recorder, found, addresses)
        return None

    triggers = {
        "services": itself,
        "pods": lambda pod: [(namespace_of(pod), ALL_SERVICES[1])],
        SLICES: _service_of_slice,
    }
    return Controller("service", triggers, reconcile)


def _service_of_slice(found: Obj) -> list[Key]:
    name = labels_of(found).get(SERVICE_LABEL)
    return [(namespace_of(found), name)] if name and labels_of(found).get(MANAGED_LABEL) == MANAGER else []


async def _reconcile_service(client: Client, recorder: Recorder, service: Obj, addresses: AddressPool) -> None:
    if service["spec"].get("type") == "ExternalName":
        return
    others = await client.list("services")
    patch = plan_allocation(service, others, addresses)
    if patch:
        service = await client.merge_patch("services", name_of(service), namespace_of(service), {"spec": patch})
    if service["spec"].get("type") == "LoadBalancer":
        ingress = {"loadBalancer": {"ingress": [{"ip": service["spec"]["clusterIP"], "ipMode": "VIP"}]}}
        key = namespace_of(service), name_of(service), uid_of(service)
        await write_status(client, "services", *key, lambda current: {**(current.get("status") or {}), **ingress})
    await _write_slices(client, recorder, service)


def plan_allocation(service: Obj, others: Sequence[Obj], addresses: AddressPool) -> Obj:
    """What to set in spec: clusterIP and node ports that are still missing; empty when nothing is."""
    spec: Obj = service["spec"]
    patch: Obj = {}
    if not spec.get("clusterIP"):
        taken = {other["spec"].get("clusterIP", "") for other in others}
        address = addresses.take(taken)
        patch |= {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
        }
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        used = {port.get("nodePort") for other in others for port in other["spec"].get("ports") or []}
        ports = [
            {**port, "nodePort": port.get("nodePort") or _free_node_port(used)} for port in spec.get("ports") or []
        ]
        if ports != spec.get("ports"):
            patch["ports"] = ports
    return patch


def _free_node_port(used: set[int | None]) -> int:
    free = [number for number in NODE_PORTS if number not in used]
    number = random.choice(free)  # spread, so that two clusters on one machine seldom meet
    used.add(number)
    return number


async def _write_slices(client: Client, recorder: Recorder, service: Obj) -> None:
    if not service["spec"].get("selector"):
        return
    namespace = namespace_of(service)
    desired = build_endpoint_slices(service, await client.list("pods", namespace))
    labels = {SERVICE_LABEL: name_of(service), MANAGED_LABEL: MANAGER}
    existing = {name_of(found): found for found in await client.list(SLICES, namespace, labels)}
    for wanted in desired:
        present = existing.pop(name_of(wanted), None)
        if present is None:
            await execute_action(Create(SLICES, wanted), client, recorder)
        elif any(present.get(key) != wanted[key] for key in ("endpoints", "ports")):
            await client.update(SLICES, {**present, "endpoints": wanted["endpoints"], "ports": wanted["ports"]})
    for surplus in existing.values():
        await delete_if_same(client, SLICES, namespace, name_of(surplus), uid_of(surplus))
