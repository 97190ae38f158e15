"""EndpointSlices, addresses and routes of Services, and the proxy on real sockets."""

import asyncio
from typing import Any

import pytest
from codetune_local.controllers.endpoints import build_endpoint_slices
from codetune_local.controllers.proxying import ServiceProxy, find_routes
from codetune_local.machinery.times import utc_now

Obj = dict[str, Any]


def service(**spec: Any) -> Obj:
    metadata = {"name": "web", "namespace": "n", "uid": "s", "labels": {"app": "web"}}
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    body = {"clusterIP": "127.96.0.1", "selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body}


def pod(
    name: str, *, ready: bool = True, phase: str = "Running", ip: str = "127.130.0.1", port: int = 8000, **more: Any
) -> Obj:
    metadata = {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"}, **more}
    containers = [{"name": "main", "ports": [{"name": "http", "containerPort": port}]}]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {
        "metadata": metadata,
        "spec": {"containers": containers, "nodeName": "local"},
        "status": {"phase": phase, "podIP": ip, "conditions": conditions},
    }


def endpoints(*pods: Obj, **spec: Any) -> list[tuple[str, bool]]:
    slices = build_endpoint_slices(service(**spec), pods)
    return [
        (found["targetRef"]["name"], found["conditions"]["ready"]) for part in slices for found in part["endpoints"]
    ]


@pytest.mark.parametrize(
    ("expected", "pods", "spec"),
    [
        pytest.param([("a", True)], [pod("a")], {}, id="ready"),
        pytest.param([("a", False)], [pod("a", ready=False)], {}, id="not ready"),
        pytest.param([("a", True)], [pod("a", ready=False)], {"publishNotReadyAddresses": True}, id="published anyhow"),
        pytest.param([("a", False)], [pod("a", deletionTimestamp="t")], {}, id="going away"),
        pytest.param([], [pod("a", phase="Succeeded")], {}, id="over"),
        pytest.param([], [pod("a", ip="")], {}, id="no address yet"),
        pytest.param([], [pod("a", labels={"app": "other"})], {}, id="not selected"),
        pytest.param([], [pod("a")], {"selector": None}, id="somebody else keeps the endpoints"),
    ],
)
def test_a_service_lists_the_pods_that_it_selects(expected: list[Any], pods: list[Obj], spec: Obj) -> None:
    assert endpoints(*pods, **spec) == expected


def test_pods_with_different_numbers_behind_a_port_name_get_slices_of_their_own() -> None:
    slices = build_endpoint_slices(service(), [pod("a", port=8000), pod("b", port=9000)])
    assert [[port["port"] for port in part["ports"]] for part in slices] == [[8000], [9000]]
    assert len({part["metadata"]["name"] for part in slices}) == 2


def test_a_slice_is_owned_and_labelled_by_its_service() -> None:
    (part,) = build_endpoint_slices(service(), [])
    assert part["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert part["metadata"]["ownerReferences"][0]["uid"] == "s"


@pytest.mark.parametrize(
    ("expected", "spec"),
    [
        pytest.param({("127.96.0.1", 80): [("127.130.0.1", 8000)]}, {}, id="its address"),
        pytest.param({}, {"clusterIP": "None"}, id="headless"),
        pytest.param({}, {"clusterIP": ""}, id="not allocated yet"),
        pytest.param({}, {"type": "ExternalName"}, id="a name only"),
        pytest.param({}, {"ports": [{"name": "http", "port": 53, "protocol": "UDP"}]}, id="not TCP"),
        pytest.param(
            {}, {"clusterIP": "127.130.0.1", "ports": [{"name": "http", "port": 8000}]}, id="the pod's own address"
        ),
        pytest.param(
            {("127.96.0.1", 80): [("127.130.0.1", 8000)], ("127.0.0.1", 30080): [("127.130.0.1", 8000)]},
            {"type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
            id="a node port",
        ),
    ],
)
def test_routes_lead_from_the_services_addresses_to_ready_pods(expected: Any, spec: Obj) -> None:
    slices = build_endpoint_slices(service(), [pod("a"), pod("b", ready=False, ip="127.130.0.2")])
    assert find_routes(service(**spec), slices) == expected


class OneService:
    """The API as the proxy sees it: one Service and its slices."""

    def __init__(self, found: Obj) -> None:
        self.service = found
        self.pods: list[Obj] = []

    async def get(self, *_: Any) -> Obj:
        return self.service

    async def list(self, *_: Any) -> list[Obj]:
        return build_endpoint_slices(self.service, self.pods)


async def start_echo(name: str) -> tuple[asyncio.Server, int]:
    """A server that answers with its name and what it was sent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode() + b":" + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def call(port: int, text: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    writer.write_eof()
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def test_connections_go_round_the_ready_pods_and_round_one_that_is_down(free_port: int) -> None:
    ports = [{"name": "http", "port": free_port, "targetPort": "http"}]
    api = OneService(service(clusterIP="127.0.0.1", ports=ports))
    proxy = ServiceProxy(api, recorder=None)  # type: ignore[arg-type]  # only what reconcile uses
    first, first_port = await start_echo("a")
    second, second_port = await start_echo("b")
    try:
        api.pods = [pod("a", ip="127.0.0.1", port=first_port), pod("b", ip="127.0.0.1", port=second_port)]
        await proxy.reconcile(("n", "web"))
        assert {await call(free_port, "x") for _ in range(4)} == {"a:x", "b:x"}
        second.close()
        assert {await call(free_port, "y" * 300_000) for _ in range(3)} == {"a:" + "y" * 300_000}
        api.pods = []
        await proxy.reconcile(("n", "web"))
        with pytest.raises(ConnectionRefusedError):
            await call(free_port, "z")
    finally:
        proxy.close()
        first.close()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_terminating_namespace_says_what_holds_it() -> None:
    from codetune_local.controllers.namespaces import build_namespace_status

    held = {"metadata": {"name": "x", "finalizers": ["codetune.dev/artifacts"]}}
    namespace = {"metadata": {"name": "n"}, "status": {"phase": "Active"}}
    status = build_namespace_status(namespace, {"finetunes.codetune.dev": [held]}, [], utc_now())
    found = {entry["type"]: (entry["status"], entry["message"]) for entry in status["conditions"]}
    assert status["phase"] == "Terminating"
    assert (
        found["NamespaceContentRemaining"][1]
        == "Some resources are remaining: finetunes.codetune.dev has 1 resource instances"
    )
    assert "codetune.dev/artifacts in 1 resource instances" in found["NamespaceFinalizersRemaining"][1]
    assert found["NamespaceDeletionContentFailure"][0] == "False"
