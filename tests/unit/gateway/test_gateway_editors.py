"""What plugins of editors send, through the gateway and the server's middleware to a vLLM that only keeps it.

The requests have the shape that each plugin's source writes: route, headers, fields. A row tells what vLLM has to get.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from byte_tokenizer import STARCODER, build_byte_tokenizer
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_api.gateway import GatewayConfig, Upstream
from codetune_server.infilling import Infiller, InfillMiddleware
from codetune_server.machine import Machine
from codetune_server.middleware import AdapterMiddleware
from codetune_server.serving import build_command
from codetune_server.settings import ServerSettings
from unit.server.conftest import AUTHORIZED, TOKEN, FakeVllm, write_adapter

if TYPE_CHECKING:
    from unit.gateway.conftest import Gateway

MODEL = "project/shop"
BEFORE, AFTER = "# calc.py\ndef add(a, b):\n    return ", "\n\n\ndef sub(a, b):\n"
LAID_OUT = f"<fim_prefix>{BEFORE}<fim_suffix>{AFTER}<fim_middle>"
# Continue's for a model whose name it doesn't know, and Zed's, which are the same for all models.
CONTINUE = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", "<|endoftext|>", "</fim_middle>", "</code>"]
CONTINUE += ["/src/", "#- coding: utf-8", "```"]
ZED = ["<|endoftext|>", "<|file_separator|>", "<|fim_pad|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
ZED += ["<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<PRE>", "<SUF>", "<MID>", "[PREFIX]", "[SUFFIX]"]

SUFFIX = [
    pytest.param(
        {"Accept": "application/json", "x-api-key": "sk-team-first"},
        {"max_tokens": 256, "temperature": 0.01, "stop": CONTINUE, "stream": True},
        id="Continue, provider llamastack",
    ),
    pytest.param({"Accept": "application/json"}, {"stream": True, "max_tokens": 64, "top_p": 0.9}, id="minuet-ai.nvim"),
    pytest.param({"Accept": "application/json"}, {"max_tokens": 64, "stream": True}, id="minuet for Emacs"),
]
PROMPT = [
    pytest.param(
        {"api-key": "sk-team-first"},
        {"max_tokens": 256, "temperature": 0.01, "stream": True, "stop": CONTINUE},
        id="Continue, provider vllm",
    ),
    pytest.param({"User-Agent": "Zed/1.0"}, {"max_tokens": 64, "stop": ZED}, id="Zed"),
    pytest.param({}, {"stream": True, "temperature": 0.2, "max_tokens": 512}, id="twinny, provider lmstudio"),
    pytest.param(
        {"User-Agent": "llm-ls/0.5.3; rust/unknown; ide/Neovim"},
        {"max_tokens": 64, "temperature": 0.2, "top_p": 0.95, "stream": False},
        id="llm.nvim",
    ),
    pytest.param(
        {},
        {"keep_alive": "5m", "options": {"num_predict": 512}, "template": "t", "input_extra": [], "n_indent": 4},
        id="fields of other servers",
    ),
]


@pytest.fixture
def vllm() -> FakeVllm:
    """Keeps what it is asked."""
    return FakeVllm()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model of StarCoder's family."""
    build_byte_tokenizer(*STARCODER).save_pretrained(str(tmp_path / "model"))
    return tmp_path / "model"


@pytest.fixture
async def server(vllm: FakeVllm, model: Path, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a serving pod, the middleware in the order of its command line, that holds `shop-adapter`."""
    store, token = tmp_path / "store", tmp_path / "token"
    token.write_text(TOKEN)
    settings = ServerSettings(
        store=store,
        cache=tmp_path / "scratch",
        adapters_file=None,
        token_file=token,
        base_model="hf://org/base@main",
        model=model,
        files=tmp_path / "files",
    )
    app = AdapterMiddleware(InfillMiddleware(vllm, model), settings)
    running = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    adapter = DesiredAdapter(name="shop-adapter", path="shop", digest=write_adapter(store / "shop"))
    async with httpx.AsyncClient() as operator:
        wanted = DesiredAdapters(adapters=[adapter]).to_wire()
        await operator.put(f"{url}/codetune/adapters", params={"wait": 10}, json=wanted, headers=AUTHORIZED)
    yield url
    running.should_exit = True
    await task


@pytest.fixture
def config(server: str) -> GatewayConfig:
    """A team with one project, which the adapter answers."""
    return GatewayConfig(
        team="builders",
        default=Upstream(url=server, model="base", deployment="coder"),
        projects={"shop": Upstream(url=server, model="shop-adapter", deployment="coder")},
    )


def get_last(vllm: FakeVllm) -> tuple[str, str, dict[str, Any]]:
    """Route, stable name of the model, and the other fields of the request that came last."""
    content: dict[str, Any] = json.loads(vllm.bodies[-1])
    return vllm.calls[-1][0], content.pop("model").partition("@")[0], content


def _counted(fields: dict[str, Any]) -> dict[str, Any]:
    """What the gateway makes of a request: it asks for the tokens of a stream too, and takes that answer out again."""
    usage = {"include_usage": True, "continuous_usage_stats": False}
    return {**fields, "stream_options": usage} if fields.get("stream") else fields


@pytest.mark.parametrize("after", [AFTER, ""], ids=["in the middle of a file", "at its end"])
@pytest.mark.parametrize(("headers", "fields"), SUFFIX)
async def test_a_suffix_is_laid_out_for_the_model_of_the_project(
    headers: dict[str, str], fields: dict[str, Any], after: str, gateway: "Gateway", vllm: FakeVllm, model: Path
) -> None:
    answer = await gateway.complete({"model": MODEL, "prompt": BEFORE, "suffix": after, **fields}, **headers)
    served = Infiller.load(model)
    assert served.format
    expected = {
        **_counted(fields),
        "prompt": served.build_prompt(BEFORE, after),
        "stop_token_ids": [*served.format.stops],
    }
    assert (answer.status, get_last(vllm)) == (200, ("/v1/completions", "shop-adapter", expected))
    assert b'"shop-adapter"' in answer.body


@pytest.mark.parametrize(("headers", "fields"), PROMPT)
async def test_a_prompt_that_the_plugin_lays_out_comes_as_it_is(
    headers: dict[str, str], fields: dict[str, Any], gateway: "Gateway", vllm: FakeVllm, model: Path
) -> None:
    answer = await gateway.complete({"model": MODEL, "prompt": LAID_OUT, **fields}, **headers)
    served = Infiller.load(model)
    assert served.format
    expected = {**_counted(fields), "prompt": LAID_OUT, "stop_token_ids": [*served.format.stops]}
    assert (answer.status, get_last(vllm)) == (200, ("/v1/completions", "shop-adapter", expected))
    assert answer.headers["Content-Type"].startswith(
        "text/event-stream" if fields.get("stream") else "application/json"
    )


@pytest.mark.parametrize(("headers", "fields"), [*SUFFIX, *PROMPT])
def test_vllm_is_started_to_take_as_many_stops_as_a_plugin_sends(
    headers: dict[str, str], fields: dict[str, Any]
) -> None:
    machine = Machine(cores=(0,), memory_bytes=1 << 30, has_ipv6=False)
    environment = build_command(["--model", "/m"], {}, machine).environment
    assert len(fields.get("stop", [])) <= int(environment["VLLM_MAX_STOP_STRINGS"])


async def test_a_chat_comes_as_it_is(gateway: "Gateway", vllm: FakeVllm) -> None:
    fields = {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "explain"}],
        "max_tokens": 2048,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = await gateway.complete({"model": MODEL, **fields}, "/v1/chat/completions")
    assert (answer.status, get_last(vllm)) == (200, ("/v1/chat/completions", "shop-adapter", fields))


async def test_the_format_of_another_model_is_told_to_the_editor(gateway: "Gateway", vllm: FakeVllm) -> None:
    prompt = f"<|fim_prefix|>{BEFORE}<|fim_suffix|>{AFTER}<|fim_middle|>"
    answer = await gateway.complete({"model": MODEL, "prompt": prompt})
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert "this model's is <fim_prefix>P<fim_suffix>S<fim_middle>" in answer.error["message"]
    assert "/v1/completions" not in {path for path, _ in vllm.calls}


@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "an answer in one piece"])
@pytest.mark.parametrize(
    "fields", [{"prompt": BEFORE, "suffix": AFTER}, {"prompt": LAID_OUT}], ids=["suffix", "prompt"]
)
async def test_an_editor_that_goes_on_typing_ends_the_computing(
    fields: dict[str, str], stream: bool, gateway: "Gateway", vllm: FakeVllm
) -> None:
    vllm.may_stream.clear()
    asking = asyncio.create_task(gateway.complete({"model": MODEL, **fields, "stream": stream}))
    async with asyncio.timeout(5):
        while not vllm.active.total():
            await asyncio.sleep(0.01)
        asking.cancel()
        while vllm.active.total():
            await asyncio.sleep(0.01)
    assert not vllm.may_stream.is_set()


async def test_a_page_in_a_browser_gets_no_leave_to_ask(gateway: "Gateway") -> None:
    asked = {"Origin": "https://page.example.com", "Access_Control_Request_Method": "POST"}
    answer = await gateway.call("OPTIONS", "/v1/completions", **asked)
    assert answer.status == 405
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
