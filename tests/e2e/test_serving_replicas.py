"""Two replicas with the real vLLM on a CPU, four adapters, API keys, and a load that never pauses.

What every single answer says is compared with PEFT's oracle for the version that its name meant at that moment
(`benchmarks/serving/load.py`). Left out: the Service in front; clients take the replicas in turn.
"""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from codetune_api.contracts import DesiredAdapters, ServerReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from load import PROMPT, TOKENS, Load, Says, Timeline, ask, is_same
from oracle import listen
from replicas import BASE_URI, TOKEN, Replica, bearer, desire, make_replica
from swaps import KINDS, tell_swaps

if TYPE_CHECKING:
    from e2e.conftest import TinyModel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(700)]

KEY = "sk-of-a-team"
VERSIONS = [f"v{number}" for number in range(1, 7)]
START = dict(zip("abcd", VERSIONS, strict=False))
SWAPS = 12
CLIENTS = 8
ARGUMENTS = ["--max-model-len", "256", "--max-loras", "2", "--max-lora-rank", "16"]
"""Four adapters on two slots, none kept in memory besides: vLLM reads them from disk again and again."""


@dataclass
class Fleet:
    """The replicas and what their adapters say."""

    replicas: list[Replica]
    root: Path
    model: Path
    expected: dict[str, Says]

    @property
    def store(self) -> Path:
        """The store that the replicas share."""
        return self.root / "store"

    @property
    def urls(self) -> list[str]:
        """Where they answer."""
        return [replica.url for replica in self.replicas]

    async def tell(self, versions: dict[str, str]) -> None:
        """What the operator does: the ConfigMap first, then every pod at once."""
        desired = desire(self.store, versions)
        for replica in self.replicas:
            replica.remember(desired)
        reports = await asyncio.gather(*(asyncio.to_thread(replica.tell, desired) for replica in self.replicas))
        for report in reports:
            assert [(state.name, state.phase) for state in report.adapters] == [(name, "Ready") for name in versions]


@pytest.fixture(scope="module")
def fleet(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas that hold the first four versions."""
    root = tmp_path_factory.mktemp("fleet")
    for seed, version in enumerate(VERSIONS, start=11):
        tiny_model.make_adapter(root / "store" / version, seed=seed, base_model=BASE_URI)
    (root / "keys").mkdir()
    (root / "keys" / "team").write_text(f"{KEY}\n")
    replicas = [make_replica(root, name, tiny_model.folder, ARGUMENTS) for name in ("first", "second")]
    try:
        for replica in replicas:
            replica.remember(desire(root / "store", START))
            replica.start()
        expected = {name: listen(tiny_model.folder, root / "store" / name, PROMPT, TOKENS) for name in VERSIONS}
        for replica in replicas:
            replica.wait_until_ready()
        yield Fleet(replicas, root, tiny_model.folder, expected)
    finally:
        for replica in replicas:
            replica.stop()


def test_the_versions_say_different_things(fleet: Fleet) -> None:
    said = [tuple(tokens) for tokens, _ in fleet.expected.values()]
    assert len(set(said)) == len(VERSIONS)


def test_changes_under_a_steady_load_fail_nothing_mix_nothing_and_leave_nothing_stale(fleet: Fleet) -> None:
    load = Load(fleet.urls, sorted(START), fleet.expected, Timeline.start(START), KEY)
    kinds = asyncio.run(swap_under_load(fleet, load))
    assert load.tally.faults == []
    assert kinds == [KINDS[number % len(KINDS)] for number in range(SWAPS)]
    assert load.tally.answers > SWAPS * CLIENTS
    assert load.tally.absent > 0  # removed names are told to be unknown
    assert len(load.tally.seen) > len(START)  # the changes were seen
    for replica in fleet.replicas:
        assert len(list((replica.folder / "cache").iterdir())) <= len(START)


async def swap_under_load(fleet: Fleet, load: Load) -> list[str]:
    """Go through the story; every state is seen by requests that began in it."""
    kinds, current = [], dict(START)
    async with load.run(CLIENTS):
        await load.see(CLIENTS)
        for kind, versions in tell_swaps(START, VERSIONS, SWAPS, seed=7):
            load.timeline.change(current, versions)
            await fleet.tell(versions)
            load.timeline.settle(versions)
            await load.see(CLIENTS)
            current = versions
            kinds.append(str(kind))
        load.timeline.change(current, START)
        await fleet.tell(START)
        load.timeline.settle(START)
        await load.see(CLIENTS)
    return kinds


def test_a_set_whose_teller_was_killed_is_settled_all_the_same(fleet: Fleet) -> None:
    desired = desire(fleet.store, {**START, "a": "v5", "b": "v6"})
    wanted = {adapter.name: adapter.digest for adapter in desired.adapters}
    for replica in fleet.replicas:
        with tell_without_listening(replica, desired):
            wait_for_report(replica, lambda report: {s.name: s.desired_digest for s in report.adapters} == wanted)
    for replica in fleet.replicas:
        wait_for_report(replica, lambda report: report.ready and {s.name: s.digest for s in report.adapters} == wanted)
        assert is_same(say(replica, "a"), fleet.expected["v5"])
        assert is_same(say(replica, "b"), fleet.expected["v6"])
    asyncio.run(fleet.tell(START))


def tell_without_listening(replica: Replica, desired: DesiredAdapters) -> socket.socket:
    """Send a PUT; the connection ends with the context, whatever was answered by then."""
    body = json.dumps(desired.to_wire()).encode()
    head = (
        f"PUT /codetune/adapters?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", replica.port))
    connection.sendall(head.encode() + body)
    return connection


def wait_for_report(replica: Replica, is_wanted: Callable[[ServerReport], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        answer = httpx.get(f"{replica.url}/codetune/adapters", headers=bearer(TOKEN), timeout=30)
        report = ServerReport.from_wire(answer.json())
        if is_wanted(report):
            return
        assert time.monotonic() < deadline, report
        time.sleep(0.05)


def say(replica: Replica, name: str) -> Says:
    async def once() -> Says:
        async with httpx.AsyncClient(timeout=60, headers=bearer(KEY)) as client:
            status, said = await ask(client, replica.url, name)
            assert status == 200
            return said

    return asyncio.run(once())


def test_a_killed_replica_has_all_its_adapters_before_it_takes_traffic(fleet: Fleet) -> None:
    killed, other = fleet.replicas
    killed.kill()
    assert not killed.is_ready()
    load = Load([other.url], sorted(START), fleet.expected, Timeline.start(START), KEY)

    async def come_back() -> None:
        async with load.run(1):  # the other one goes on meanwhile
            killed.start()
            await asyncio.to_thread(killed.wait_until_ready)

    asyncio.run(come_back())
    assert load.tally.faults == []
    for name, version in START.items():
        assert is_same(say(killed, name), fleet.expected[version])


def client_of(fleet: Fleet, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=key, max_retries=0)


def test_openais_client_lists_and_completes(fleet: Fleet) -> None:
    client = client_of(fleet)
    assert [model.id for model in client.models.list()] == ["base", *START]
    assert client.models.retrieve("c").id == "c"
    whole = client.completions.create(model="a", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=2, n=1)
    assert (whole.model, whole.choices[0].finish_reason) == ("a", "length")
    assert whole.choices[0].logprobs is not None
    assert len(whole.choices[0].logprobs.tokens or []) == 6
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 6
    two = client.completions.create(model="a", prompt=[PROMPT, PROMPT], max_tokens=2, temperature=0)
    assert [choice.index for choice in two.choices] == [0, 1]
    options: Any = {"include_usage": True}
    stream = client.completions.create(
        model="a", prompt=PROMPT, max_tokens=6, temperature=0, stream=True, stream_options=options
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"a"}
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage is not None
    raw = client.completions.with_raw_response.create(model="b", prompt=PROMPT, max_tokens=1)
    assert raw.parse().model == "b"


def test_openais_client_chats(fleet: Fleet) -> None:
    client = client_of(fleet)
    messages: Any = [{"role": "system", "content": "code"}, {"role": "user", "content": "def f():"}]
    whole = client.chat.completions.create(model="b", messages=messages, max_tokens=5, temperature=0)
    assert (whole.model, whole.choices[0].message.role) == ("b", "assistant")
    stream = client.chat.completions.create(model="b", messages=messages, max_tokens=5, temperature=0, stream=True)
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"b"}
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content


def test_openais_asynchronous_client_streams_and_may_hang_up(fleet: Fleet) -> None:
    async def stream() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.completions.create(model="d", prompt=PROMPT, max_tokens=200, stream=True)
            models = []
            async for chunk in answer:
                models.append(chunk.model)
                if len(models) == 3:
                    await answer.close()
                    break
            again = await client.completions.create(model="d", prompt=PROMPT, max_tokens=1)
            return [*models, again.model]

    assert asyncio.run(stream()) == ["d"] * 4


def test_openais_client_knows_every_error(fleet: Fleet) -> None:
    client = client_of(fleet)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.completions.create(model="nobody", prompt=PROMPT)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("nobody")
    with pytest.raises(openai.BadRequestError, match=r"max_model_len|context length"):
        client.completions.create(model="a", prompt=PROMPT, max_tokens=100_000)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="a", prompt=PROMPT, temperature=-1)
    with pytest.raises(openai.PermissionDeniedError, match="set by its ModelDeployment"):
        client.post("/load_lora_adapter", cast_to=object, body={"lora_name": "x", "lora_path": "/x"})
    with pytest.raises(openai.AuthenticationError, match="asks for an API key"):
        client_of(fleet, "sk-wrong").chat.completions.create(model="a", messages=[])


def test_every_route_of_the_real_server_asks_for_a_key_and_keys_are_renewed(fleet: Fleet) -> None:
    url = fleet.urls[0]
    for path in ("/v1/models", "/metrics", "/version", "/openapi.json", "/docs", "/tokenize", "/load"):
        assert httpx.get(url + path, timeout=30).status_code == 401, path
    for path in ("/health", "/codetune/ready"):
        assert httpx.get(url + path, timeout=30).status_code == 200, path
    file = fleet.root / "keys" / "team"
    file.write_text("sk-another\n")
    with pytest.raises(openai.AuthenticationError):
        client_of(fleet).models.list()
    assert client_of(fleet, "sk-another").models.list().data
    file.write_text(f"{KEY}\n")
    assert client_of(fleet).models.list().data


async def stream_through(fleet: Fleet, replica: Replica, leave: Any) -> tuple[int, Says]:
    """A long stream during which the replica is asked to leave."""
    async with httpx.AsyncClient(timeout=120, headers=bearer(KEY)) as client:
        stream = asyncio.create_task(ask(client, replica.url, "a", tokens=200))
        metrics = f"{replica.url}/metrics"
        while "vllm:num_requests_running{" in (text := (await client.get(metrics)).text):
            line = next(line for line in text.splitlines() if line.startswith("vllm:num_requests_running{"))
            if float(line.split()[-1]) >= 1 or stream.done():
                break
        await asyncio.to_thread(leave)
        return await stream


def test_the_pre_stop_hook_waits_for_a_stream_and_the_signal_then_finds_nobody(fleet: Fleet) -> None:
    replica = fleet.replicas[0]
    hook = [sys.executable, "-m", "codetune_server", "drain", "--port", str(replica.port), "--settle", "0"]

    def leave() -> None:
        subprocess.run(hook, env=replica.environment, check=True, timeout=120)

    status, (tokens, _) = asyncio.run(stream_through(fleet, replica, leave))
    assert (status, len(tokens)) == (200, 200)
    assert not replica.is_ready()
    assert httpx.get(f"{replica.url}/v1/models", headers=bearer(KEY)).headers["connection"] == "close"
    assert replica.stop() == 0


def test_a_bare_signal_lets_a_stream_end_too(fleet: Fleet) -> None:
    replica = fleet.replicas[1]
    assert replica.process is not None
    status, (tokens, _) = asyncio.run(stream_through(fleet, replica, replica.process.terminate))
    assert (status, len(tokens)) == (200, 200)
    assert replica.stop() == 0
