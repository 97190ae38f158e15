"""services/proxy and pods/proxy: requests to what runs in the cluster, under the caller's own rights."""

from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from codetune_local.apiserver.answering.requests import Target
from codetune_local.apiserver.catalog import ResourceInfo
from codetune_local.apiserver.errors import ApiError, bad_request
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "authorization",
}


async def forward(request: web.Request, info: ResourceInfo, target: Target, registry: Registry) -> web.StreamResponse:
    """Pass a request on and stream the answer back. Raises: ApiError (503 when nobody answers)."""
    name, _, port = target.name.removeprefix("http:").partition(":")
    address = (
        _pod_address(info, target, name, port, registry)
        if info.key == "pods"
        else _service_address(target, name, port, registry)
    )
    # Not decoded and encoded again: what was sent arrives.
    url = URL(f"http://{address}{_rest_of(request.raw_path)}", encoded=True)
    # The caller's own token was for the API server; as in a real one it goes no further.
    headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.request(
                request.method,
                url,
                headers=headers,
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
            ) as answer,
        ):
            response = web.StreamResponse(status=answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in _HOP:
                    response.headers.add(key, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            return response
    except aiohttp.ClientPayloadError as error:
        # It is under way to the caller already: nothing is left but to break off as well.
        raise ConnectionResetError(f"the service broke off its answer: {error}") from error
    except aiohttp.ClientConnectionError as error:
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error


def _rest_of(path: str) -> str:
    """Path and query after `/api/v1/namespaces/NAMESPACE/services/NAME/proxy`."""
    plain, mark, query = path.partition("?")
    parts = plain.split("/", 8)
    return "/" + (parts[8] if len(parts) > 8 else "") + mark + query


def _pod_address(info: ResourceInfo, target: Target, name: str, port: str, registry: Registry) -> str:
    pod = registry.get(info, target.namespace or "", name)
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise ApiError(503, "ServiceUnavailable", f"pod {name} has no address yet")
    return f"{address}:{port or _first_port(pod)}"


def _first_port(pod: Obj) -> int:
    ports = [
        found["containerPort"] for container in pod["spec"]["containers"] for found in container.get("ports") or []
    ]
    return int(ports[0]) if ports else 80


def _service_address(target: Target, name: str, port: str, registry: Registry) -> str:
    namespace = target.namespace or ""
    service = registry.get(registry.by_key("services"), namespace, name)
    wanted = [
        found
        for found in service["spec"].get("ports") or []
        if not port or port in (str(found["port"]), found.get("name"))
    ]
    if not wanted:
        raise bad_request(f'no service port "{port}" found for service "{name}"')
    for piece in registry.storage.all("endpointslices.discovery.k8s.io", namespace):
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
            continue
        numbers = [
            found["port"]
            for found in piece.get("ports") or []
            if found.get("name") in (wanted[0].get("name"), "" if "name" not in wanted[0] else None)
        ]
        for endpoint in piece.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready", True) and endpoint.get("addresses") and numbers:
                return f"{endpoint['addresses'][0]}:{numbers[0]}"
    raise ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')
