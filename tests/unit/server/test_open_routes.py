"""Which of vLLM's routes clients reach: those that answer them, and none that changes or shows the server.

The administrative routes are those of vLLM 0.32 with `VLLM_SERVER_DEV_MODE`, elastic expert parallelism, fault
tolerance, scale-out and profiling turned on, and those of its SageMaker layer; the last rows are of nobody yet.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_server.opening import is_open

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]

CLOSED = [
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/load_lora_adapter/", "/v1/load_lora_adapter\n"),
    *("/adapters", "/adapters/tuned"),
    *("/sleep", "/wake_up", "/is_sleeping", "/release_kv_cache_memory"),
    *("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"),
    *("/collective_rpc", "/server_info", "/kv_event_sources"),
    *("/start_profile", "/stop_profile"),
    *("/pause", "/resume", "/is_paused", "/abort_requests", "/inference/v1/abort_requests", "/inference/v1/generate"),
    *("/init_weight_transfer_engine", "/shutdown_weight_transfer_engine", "/start_weight_update"),
    *("/start_draft_weight_update", "/update_weights", "/finish_weight_update", "/update_weight_version"),
    *("/weight_info", "/weight_checker", "/get_world_size"),
    *("/scale_elastic_ep", "/is_scaling_elastic_ep"),
    *("/fault_tolerance/apply", "/fault_tolerance/status"),
    *("/v1/lora", "/some_new_route", "/", ""),
]
OPEN = [
    *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/responses/resp_1/cancel", "/v1/messages"),
    *("/v1/messages/count_tokens", "/v1/models", "/v1/models/team/lora-fine"),
    *("/v1/embeddings", "/v1/audio/translations"),
    *("/v1/some_new_route", "/v1/realtime", "/v2/rerank", "/v2/embed", "/cohere/v2/chat"),
    *("/tokenize", "/detokenize", "/pooling", "/classify", "/score", "/rerank", "/generative_scoring", "/invocations"),
    *("/health", "/ping", "/metrics", "/version", "/load", "/docs", "/openapi.json", "/static/swagger-ui.css"),
]


@pytest.mark.parametrize("path", CLOSED)
def test_what_administers_the_server_is_closed(path: str) -> None:
    assert not is_open(path)


@pytest.mark.parametrize("path", OPEN)
def test_what_answers_clients_is_open(path: str) -> None:
    assert is_open(path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "/v1/load_lora_adapter", id="vLLM's own"),
        pytest.param("POST", "/v1/%6Coad_lora_adapter", id="a letter escaped"),
        pytest.param("DELETE", "/adapters/tuned", id="SageMaker's"),
        pytest.param("POST", "/scale_elastic_ep", id="always there"),
        pytest.param("GET", "/server_info", id="only a question"),
        pytest.param("OPTIONS", "/collective_rpc", id="another method"),
    ],
)
async def test_a_closed_route_is_not_reached(method: str, path: str, pod: "Pod") -> None:
    before = len(pod.vllm.calls)
    answer = await pod.client.request(method, path, json={"lora_name": "x", "lora_path": "/etc"})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "PermissionDeniedError"
    assert pod.vllm.loaded == {}
    assert all(called in ("/health", "/v1/models") for called, _ in pod.vllm.calls[before:])  # the pod's own questions


async def test_a_client_that_forgot_v1_is_told_where_the_api_begins(pod: "Pod") -> None:
    answer = await pod.client.post("/chat/completions", json={"model": "base"})
    assert answer.status_code == 403
    assert "the API begins with /v1" in answer.json()["error"]["message"]


async def test_routes_are_closed_below_a_root_path_too(pod: "Pod") -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}"}

    scope = {"type": "http", "method": "POST", "root_path": "/api", "path": "/api/v1/load_lora_adapter", "headers": []}
    await pod.app(scope, receive, send)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize(("path", "passes"), [("/v1/realtime", True), ("/collective_rpc", False)])
async def test_a_websocket_reaches_the_same_routes(path: str, passes: bool, pod: "Pod") -> None:
    seen: list[str] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message["type"])

    pod.app._app = app
    await pod.app({"type": "websocket", "path": path}, None, send)  # type: ignore[arg-type]
    assert (seen, sent) == (([path], []) if passes else ([], ["websocket.close"]))
