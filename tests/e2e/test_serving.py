"""The server image's program with the real vLLM on a CPU, a tiny model and adapters made by PEFT.

Two servers: ours, through a story of loads, swaps and refusals, and stock vLLM with `--lora-modules`. What the model
says is compared with an oracle that knows nothing of vLLM: transformers and PEFT.
"""

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters, ServerReport
from codetune_server.opening import is_open
from e2e.telling import BASE_URI, PROMPT, TOKEN, TOKENS, Serving, digest_of, oracle, say

if TYPE_CHECKING:
    from e2e.conftest import Server, TinyModel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

RECORDED = Path(__file__).parents[1] / "unit" / "server" / "recorded" / "vllm-0.32.json"


@pytest.fixture(scope="module")
def serving(
    tiny_model: "TinyModel", start_server: "Callable[..., Server]", tmp_path_factory: pytest.TempPathFactory
) -> Serving:
    """Our server, started with one good adapter and one that is not there."""
    root = tmp_path_factory.mktemp("pod")
    store = root / "store"
    for seed, name in enumerate(("one", "two", "three"), start=1):
        tiny_model.make_adapter(store / name, seed=seed, base_model=BASE_URI)
    (root / "token").write_text(TOKEN)
    wanted = DesiredAdapter(name="tuned", path="one", digest=digest_of(store / "one"))
    absent = DesiredAdapter(name="absent", path="nowhere")
    (root / "adapters.json").write_text(json.dumps(DesiredAdapters(adapters=[wanted, absent]).to_wire()))
    server = start_server(
        *("-m", "codetune_server", "serve", "--", "--model", str(tiny_model.folder), "--served-model-name", "base"),
        *("--port", "{port}", "--max-model-len", "256", "--max-loras", "2", "--max-lora-rank", "16"),
        environment={
            "CODETUNE_STORE": str(store),
            "CODETUNE_ADAPTERS": str(root / "adapters.json"),
            "CODETUNE_ADAPTER_TOKEN_FILE": str(root / "token"),
            "CODETUNE_BASE_MODEL": BASE_URI,
            "CODETUNE_BIND_HOST": "127.0.0.1",
            "CODETUNE_DEVICE": "cpu",
        },
    )
    server.wait_until_healthy()
    wait_until_ready(server)
    return Serving(server, store, tiny_model)


def wait_until_ready(server: "Server") -> None:
    deadline = time.monotonic() + 30
    while not server.answers("/codetune/ready"):
        assert time.monotonic() < deadline, server.log.read_text()[-4000:]
        time.sleep(0.1)


def test_a_ready_pod_holds_its_adapters_and_names_what_it_refused(serving: Serving) -> None:
    answer = httpx.get(f"{serving.server.url}/codetune/adapters", headers={"Authorization": f"Bearer {TOKEN}"})
    report = ServerReport.from_wire(answer.json())
    assert report.models == ["base", "tuned"]
    assert [(a.name, a.phase, a.reason) for a in report.adapters] == [
        ("tuned", "Ready", ""),
        ("absent", "Failed", "AdapterNotFound"),
    ]


def test_base_and_adapter_say_what_peft_says(serving: Serving) -> None:
    for name, folder in (("base", None), ("tuned", serving.store / "one")):
        tokens, logprobs = serving.say(name)
        expected_tokens, expected_logprobs = oracle(serving.model.folder, folder)
        assert tokens == expected_tokens
        assert logprobs == pytest.approx(expected_logprobs, abs=2e-3)
    assert serving.say("base")[0] != serving.say("tuned")[0]


def test_a_replaced_adapter_answers_anew_under_the_same_name(serving: Serving) -> None:
    assert serving.say("tuned")[0] == oracle(serving.model.folder, serving.store / "one")[0]  # now in the prefix cache
    report = serving.put(serving.adapter("tuned", "two"), serving.adapter("other", "three"))
    assert [a.phase for a in report.adapters] == ["Ready", "Ready"]
    for name, folder in (("tuned", "two"), ("other", "three")):
        tokens, logprobs = serving.say(name)
        expected_tokens, expected_logprobs = oracle(serving.model.folder, serving.store / folder)
        assert tokens == expected_tokens
        assert logprobs == pytest.approx(expected_logprobs, abs=2e-3)


def test_adapters_on_embeddings_and_head_say_what_peft_says_and_leave_the_base_alone(serving: Serving) -> None:
    """All at once, so that one batch has tokens of each, and both slots are taken."""
    folders = {"wide": serving.store / "wide", "wider": serving.store / "wider", "base": None}
    for seed, folder in enumerate(filter(None, folders.values()), start=31):
        serving.model.make_adapter(folder, seed=seed, base_model=BASE_URI, embeddings=True)
    report = serving.put(serving.adapter("wide", "wide"), serving.adapter("wider", "wider"))
    assert [a.phase for a in report.adapters] == ["Ready", "Ready"]
    with ThreadPoolExecutor(12) as at_once:
        answers = list(at_once.map(serving.say, list(folders) * 4))
    for name, (tokens, logprobs) in zip(list(folders) * 4, answers, strict=True):
        expected_tokens, expected_logprobs = oracle(serving.model.folder, folders[name])
        assert tokens == expected_tokens, name
        assert logprobs == pytest.approx(expected_logprobs, abs=2e-3), name
    score_prompts(serving, folders)
    serving.put(serving.adapter("tuned", "two"), serving.adapter("other", "three"))


def score_prompts(serving: Serving, folders: dict[str, Path | None]) -> None:
    """What the models give each token of prompts of different lengths, asked for in both ways at once, is what PEFT
    says: vLLM by itself dies of two such requests in a batch."""
    asked = [(name, PROMPT[:letters]) for letters in (3, 12, 140) for name in folders] * 2
    with ThreadPoolExecutor(len(asked)) as at_once:
        answers = list(
            at_once.map(lambda index: score(serving.server.url, *asked[index], index % 2), range(len(asked)))
        )
    for (name, prompt), said in zip(asked, answers, strict=True):
        expected = score_by_peft(serving.model.folder, folders[name], prompt)
        assert said == pytest.approx(expected, abs=2e-3), (name, prompt)


def score(url: str, model: str, prompt: str, way: int) -> list[float]:
    """The log-probability of each token of a prompt but the first."""
    extra: dict[str, Any] = {"echo": True, "logprobs": 0} if way else {"prompt_logprobs": 0}
    body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "return_token_ids": True, **extra}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    if way:
        logprobs: list[float] = choice["logprobs"]["token_logprobs"][1:-1]
        return logprobs
    tokens = zip(choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True)
    return [scores[str(token)]["logprob"] for token, scores in tokens]


def score_by_peft(model: Path, adapter: Path | None, prompt: str) -> list[float]:
    """The same as `score`, by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        network = PeftModel.from_pretrained(network, str(adapter))
    tokens = AutoTokenizer.from_pretrained(model)(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        scores = torch.log_softmax(network.eval()(input_ids=tokens).logits[0, :-1], dim=-1)
    found: list[float] = scores.gather(1, tokens[0, 1:, None])[:, 0].tolist()
    return found


def test_openais_client_finds_its_way(serving: Serving) -> None:
    client = serving.client()
    assert [model.id for model in client.models.list()] == ["base", "tuned", "other"]
    assert client.models.retrieve("tuned").id == "tuned"
    whole = client.completions.create(model="tuned", prompt=PROMPT, max_tokens=4, temperature=0)
    assert whole.model == "tuned"
    with client.completions.create(model="tuned", prompt=PROMPT, max_tokens=4, temperature=0, stream=True) as stream:
        chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"tuned"}
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    chat = client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}], max_tokens=4)
    assert chat.model == "other"
    for unknown in ("nope", f"tuned@{digest_of(serving.store / 'two')[7:19]}"):
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model=unknown, prompt=PROMPT)


def test_broken_adapters_are_refused_by_name_while_the_others_serve(serving: Serving) -> None:
    shutil.copytree(serving.store / "one", serving.store / "cut")
    weights = serving.store / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    serving.model.make_adapter(serving.store / "high", seed=5, rank=256, base_model=BASE_URI)
    serving.model.make_adapter(serving.store / "foreign", seed=6, base_model="hf://org/another")
    make_misshapen(serving.store / "misshapen")
    report = serving.put(
        DesiredAdapter(name="corrupt", path="one", digest="sha256:" + "0" * 64),
        serving.adapter("cut", "cut"),
        serving.adapter("high", "high"),
        serving.adapter("foreign", "foreign"),
        serving.adapter("misshapen", "misshapen"),
        DesiredAdapter(name="missing", path="missing"),
        serving.adapter("tuned", "two"),
    )
    assert {a.name: a.reason for a in report.adapters} == {
        "corrupt": "DigestMismatch",
        "cut": "InvalidAdapter",
        "high": "RankTooHigh",
        "foreign": "BaseModelMismatch",
        "misshapen": "LoadFailed",  # only vLLM knows how wide its layers are
        "missing": "AdapterNotFound",
        "tuned": "",
    }
    assert report.models == ["base", "tuned"]
    assert serving.say("tuned")[0] == oracle(serving.model.folder, serving.store / "two")[0]


def make_misshapen(folder: Path) -> None:
    """An adapter of a wider model, whose config doesn't say so."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=264, hidden_size=96, num_hidden_layers=3, num_attention_heads=3)
    network = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    lora = LoraConfig(r=8, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(network, lora).save_pretrained(str(folder))


def test_swaps_under_load_fail_nothing_and_mix_nothing(serving: Serving) -> None:
    versions = [("one", "two", "three")[swap % 3] for swap in range(9)]
    expected = {folder: oracle(serving.model.folder, serving.store / folder)[0] for folder in versions}
    serving.put(serving.adapter("tuned", versions[0]))
    answers = asyncio.run(swap_under_load(serving, versions, clients=4))
    for answer in answers:
        possible = versions[answer.settled_before : answer.asked_after + 1]
        assert answer.tokens in [expected[folder] for folder in possible]
    assert {answer.settled_before for answer in answers} >= set(range(1, len(versions)))
    assert serving.say("tuned")[0] == expected[versions[-1]]


@dataclass(frozen=True)
class Streamed:
    """A whole streamed answer, and which versions it may be of: indices of versions."""

    tokens: list[int]
    settled_before: int
    """The version that every new request got when this one was sent."""
    asked_after: int
    """The newest version that had been asked for when this one's last token came."""


async def swap_under_load(serving: Serving, versions: list[str], *, clients: int) -> list[Streamed]:
    """All streamed answers while the adapter is replaced again and again; each version serves at least one."""
    over = asyncio.Event()
    answers: list[Streamed] = []
    settled = asked = 0

    async def ask(client: httpx.AsyncClient) -> None:
        body = {"model": "tuned", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}
        while not over.is_set():
            before = settled
            answer = await client.post("/v1/completions", json={**body, "return_token_ids": True, "ignore_eos": True})
            assert answer.status_code == 200, answer.text
            events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
            assert events[-1] == "[DONE]"
            chunks = [json.loads(event) for event in events[:-1]]
            assert {chunk["model"] for chunk in chunks} == {"tuned"}
            tokens = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
            answers.append(Streamed(tokens, before, asked))

    async with httpx.AsyncClient(base_url=serving.server.url, timeout=60) as client, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask(client))
        for asked in range(1, len(versions)):
            report = await asyncio.to_thread(serving.put, serving.adapter("tuned", versions[asked]))
            assert [a.phase for a in report.adapters] == ["Ready"]
            settled = asked
            while not any(answer.settled_before == settled for answer in answers):
                await asyncio.sleep(0.05)
        over.set()
    return answers


def test_an_adapter_that_had_to_leave_its_slot_answers_though_its_folder_is_gone(serving: Serving) -> None:
    shutil.copytree(serving.store / "one", serving.store / "pruned")
    names = {"pruned": "pruned", "second": "two", "third": "three"}  # three on two slots
    report = serving.put(*(serving.adapter(name, folder) for name, folder in names.items()))
    assert [a.phase for a in report.adapters] == ["Ready"] * 3
    expected = serving.say("pruned")
    assert all(serving.say(name) for name in ("second", "third"))  # now both slots are theirs
    shutil.rmtree(serving.store / "pruned")
    assert serving.say("pruned")[0] == expected[0]
    assert serving.server.answers("/health")


def test_a_removed_adapter_is_unknown_and_the_base_goes_on(serving: Serving) -> None:
    assert serving.put().models == ["base"]
    client = serving.client()
    assert [model.id for model in client.models.list()] == ["base"]
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="tuned", prompt=PROMPT)
    assert serving.say("base")[0] == oracle(serving.model.folder, None)[0]


def test_what_administers_the_server_is_closed_to_clients(serving: Serving) -> None:
    body = {"lora_name": "mine", "lora_path": str(serving.store / "one")}
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/scale_elastic_ep"):
        assert httpx.post(serving.server.url + path, json=body).status_code == 403
    for path in ("/metrics", "/version", "/load", "/openapi.json", "/docs"):
        assert httpx.get(serving.server.url + path).status_code == 200


OPEN = {
    *(
        "/health",
        "/ping",
        "/version",
        "/load",
        "/metrics",
        "/tokenize",
        "/detokenize",
        "/generative_scoring",
        "/invocations",
    ),
    *("/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/chat/completions/batch", "/v1/responses"),
    *("/v1/responses/{response_id}", "/v1/responses/{response_id}/cancel", "/v1/messages", "/v1/messages/count_tokens"),
    "/v1/systemone",
}
"""All that clients may call of what vLLM 0.32 has for a model that writes text, everything turned on."""


def test_stock_vllm_loads_the_same_folder_and_answers_as_recorded(
    serving: Serving, start_server: "Callable[..., Server]"
) -> None:
    serving.server.stop()
    stock = start_server(
        *("-m", "vllm.entrypoints.openai.api_server", "--model", str(serving.model.folder), "--host", "127.0.0.1"),
        *("--port", "{port}", "--served-model-name", "base", "--max-model-len", "256", "--dtype", "float32"),
        *("--enforce-eager", "--enable-lora", "--lora-modules", f"tuned={serving.store / 'one'}"),
        environment={
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_SERVER_DEV_MODE": "1",
        },
    )
    stock.wait_until_healthy()
    assert say(stock.url, "tuned")[0] == oracle(serving.model.folder, serving.store / "one")[0]
    recorded = json.loads(RECORDED.read_text())
    if httpx.get(f"{stock.url}/version").json()["version"] == recorded["vllm"]:
        for name, entry in recorded["replies"].items():
            compare_with_record(stock.url, name, entry, serving.store)
        # Whoever takes in another release decides about each of its routes.
        assert {path for path in httpx.get(f"{stock.url}/openapi.json").json()["paths"] if is_open(path)} == OPEN


def compare_with_record(url: str, name: str, entry: dict[str, Any], store: Path) -> None:
    """A live reply has the status, type and form of the recorded one: what the unit tests' fake stands on."""
    request = entry["request"]
    body = request["body"] and json.loads(json.dumps(request["body"]).replace("/store/a1", str(store / "one")))
    if body and body.get("lora_path") == "/store/wrong":
        body["lora_path"] = str(store / "misshapen")
    answer = httpx.request(request["method"], url + request["path"], json=body, timeout=60)
    assert (answer.status_code, answer.headers.get("content-type", "")) == (entry["status"], entry["contentType"]), name
    if entry["contentType"] == "application/json":
        assert answer.json().keys() == json.loads(entry["body"]).keys(), name
        assert error_of(answer.json()) == error_of(json.loads(entry["body"])), name
    elif entry["contentType"].startswith("text/event-stream"):
        assert [form(line) for line in answer.text.splitlines()] == [form(line) for line in entry["body"].splitlines()]
    else:
        assert answer.text == entry["body"], name


def error_of(reply: dict[str, Any]) -> tuple[Any, ...]:
    error = reply.get("error", {})
    return (error.get("type"), error.get("param"), error.get("code"))


def form(line: str) -> Any:
    """An event's line without its content: its fields, or the line itself."""
    return sorted(json.loads(line[6:])) if line.startswith("data: {") else line
