"""OpenAI's own client library against the real server: what it calls, what it raises, and how it hangs up.

Each call is one that a person's editor or agent makes. Left out: what the tiny model has no tools, images or voice for.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from fleet import KEY, START, Fleet
from load import PROMPT
from oracle import listen

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

MESSAGES: Any = [{"role": "system", "content": "code"}, {"role": "user", "content": "def f():"}]
USAGE: Any = {"include_usage": True}
IGNORE_EOS: Any = {"extra_body": {"ignore_eos": True}}


def client_of(fleet: Fleet, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=key, max_retries=0)


def test_models_are_listed_and_retrieved(fleet: Fleet) -> None:
    client = client_of(fleet)
    assert [model.id for model in client.models.list()] == ["base", *START]
    assert client.models.retrieve("c").id == "c"


def test_a_completion_is_whole_or_streamed_and_says_the_same(fleet: Fleet) -> None:
    client = client_of(fleet)
    whole = client.completions.create(model="a", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=2, echo=True)
    (choice,) = whole.choices
    assert (whole.model, choice.finish_reason, whole.object) == ("a", "length", "text_completion")
    assert choice.text.startswith(PROMPT)
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert len(choice.logprobs.token_logprobs) == len(PROMPT) + 6
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (len(PROMPT), 6)
    stream = client.completions.create(
        model="a", prompt=PROMPT, max_tokens=6, temperature=0, stream=True, stream_options=USAGE
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"a"}
    assert PROMPT + "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == choice.text
    assert (chunks[-1].choices, chunks[-1].usage and chunks[-1].usage.completion_tokens) == ([], 6)


def test_several_choices_and_several_prompts_keep_their_order(fleet: Fleet) -> None:
    client = client_of(fleet)
    three = client.completions.create(model="b", prompt=PROMPT, max_tokens=4, n=3, temperature=1, seed=7)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    two = client.completions.create(model="b", prompt=[PROMPT, "x = 1"], max_tokens=2, temperature=0)
    alone = client.completions.create(model="b", prompt="x = 1", max_tokens=2, temperature=0)
    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[1].text == alone.choices[0].text
    streamed = client.completions.create(model="b", prompt=PROMPT, max_tokens=4, n=2, stream=True)
    assert {choice.index for chunk in streamed for choice in chunk.choices} == {0, 1}


def test_a_completion_stops_where_it_is_told_to(fleet: Fleet) -> None:
    client = client_of(fleet)
    full = client.completions.create(model="a", prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text
    stop = full[3]
    cut = client.completions.create(model="a", prompt=PROMPT, max_tokens=8, temperature=0, stop=[stop]).choices[0]
    assert (cut.text, cut.finish_reason) == (full[: full.index(stop)], "stop")


def test_a_suffix_is_filled_in_between_by_the_familys_own_tokens(fleet: Fleet) -> None:
    prefix, suffix = "def add(a, b):\n    return ", "\n\nprint(add(1, 2))\n"
    prompt = f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>"
    tokens, scores = listen(fleet.model, fleet.store / START["a"], prompt, 6)  # which knows nothing of a suffix
    extra = {"return_token_ids": True, "ignore_eos": True}
    for stream in (False, True):
        answer: Any = client_of(fleet).completions.create(
            **{"model": "a", "prompt": prefix, "suffix": suffix, "max_tokens": 6, "temperature": 0, "logprobs": 0},
            stream=stream,
            extra_body=extra,
        )
        choices = [part.choices[0] for part in answer] if stream else answer.choices
        assert [token for choice in choices for token in choice.token_ids] == tokens
        found = [score for choice in choices for score in choice.logprobs.token_logprobs]
        assert found == pytest.approx(scores, abs=2e-3)
    assert len(AutoTokenizer.from_pretrained(fleet.model)("<|fim_prefix|>").input_ids) == 1  # else this tests nothing


def test_a_chat_is_whole_or_streamed_and_says_the_same(fleet: Fleet) -> None:
    client = client_of(fleet)
    options: Any = {"model": "b", "messages": MESSAGES, "max_completion_tokens": 5, "temperature": 0}
    whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
    (choice,) = whole.choices
    assert (whole.model, choice.message.role, whole.object) == ("b", "assistant", "chat.completion")
    assert choice.logprobs is not None
    assert [len(entry.top_logprobs) for entry in choice.logprobs.content or []] == [2] * 5
    chunks = list(client.chat.completions.create(**options, stream=True, stream_options=USAGE))
    assert {chunk.model for chunk in chunks} == {"b"}
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == choice.message.content
    assert chunks[-1].usage is not None


def test_a_response_is_whole_or_streamed_under_the_stable_name(fleet: Fleet) -> None:
    client = client_of(fleet)
    whole = client.responses.create(model="c", input="def f():", max_output_tokens=4, temperature=0, store=False)
    assert (whole.model, whole.status) == ("c", "incomplete")
    events: list[Any] = list(
        client.responses.create(
            model="c", input="def f():", max_output_tokens=4, temperature=0, store=False, stream=True
        )
    )
    assert {event.response.model for event in events if hasattr(event, "response")} == {"c"}
    assert "@" not in "".join(event.to_json() for event in events)


def test_raw_and_streaming_answers_can_be_read(fleet: Fleet) -> None:
    client = client_of(fleet)
    raw = client.completions.with_raw_response.create(model="b", prompt=PROMPT, max_tokens=1)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().model == "b"
    with client.completions.with_streaming_response.create(model="b", prompt=PROMPT, max_tokens=1) as streaming:
        assert '"model":"b"' in streaming.read().decode()


def test_many_at_once_each_get_their_own_adapter(fleet: Fleet) -> None:
    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=KEY, max_retries=0) as client:
            names = [*START, "base"] * 4
            asked = [client.completions.create(model=name, prompt=PROMPT, max_tokens=3) for name in names]
            return [f"{name}={answer.model}" for name, answer in zip(names, await asyncio.gather(*asked), strict=True)]

    assert {said.partition("=")[0] == said.partition("=")[2] for said in asyncio.run(ask_all())} == {True}


def test_a_client_that_hangs_up_stops_the_computing(fleet: Fleet) -> None:
    async def hang_up() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{fleet.urls[0]}/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.completions.create(model="d", prompt="x", max_tokens=250, stream=True, **IGNORE_EOS)
            models = []
            async for chunk in answer:
                models.append(chunk.model)
                if len(models) == 3:
                    await answer.close()
                    break
            return models

    def count_computed() -> float:
        before = fleet.count("vllm:generation_tokens_total")
        assert asyncio.run(hang_up()) == ["d"] * 3
        deadline = time.monotonic() + 10
        while fleet.count("vllm:num_requests_running"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return fleet.count("vllm:generation_tokens_total") - before

    # On two cores vLLM's engine sometimes lets nobody know of its tokens before it has computed all of them; a server
    # that computes what nobody reads does so each time.
    assert any(count_computed() < 240 for _ in range(8))
    with pytest.raises(openai.APITimeoutError):
        client_of(fleet).completions.create(model="d", prompt="x", max_tokens=250, timeout=0.05, **IGNORE_EOS)
    assert client_of(fleet).completions.create(model="d", prompt=PROMPT, max_tokens=1).model == "d"


ERRORS = [
    pytest.param(404, openai.NotFoundError, "does not exist", {"model": "nobody"}, id="another model"),
    pytest.param(400, openai.BadRequestError, "max_model_len|context length", {"max_tokens": 100_000}, id="too long"),
    pytest.param(400, openai.BadRequestError, "temperature", {"temperature": -1}, id="a value"),
    pytest.param(400, openai.BadRequestError, "n", {"n": 0}, id="no choice"),
    pytest.param(
        400, openai.BadRequestError, "[Ss]tream.options", {"stream_options": USAGE}, id="options of no stream"
    ),
    pytest.param(400, openai.BadRequestError, "suffix", {"suffix": "b", "echo": True}, id="echo of a suffix"),
]


@pytest.mark.parametrize(("status", "kind", "sentence", "request_"), ERRORS)
def test_what_a_completion_does_wrong_is_raised_as_the_library_knows_it(
    status: int, kind: type[openai.APIStatusError], sentence: str, request_: dict[str, Any], fleet: Fleet
) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        client_of(fleet).completions.create(**{"model": "a", "prompt": PROMPT, "max_tokens": 1, **request_})
    assert caught.value.status_code == status
    assert "@" not in str(caught.value)  # no version's name


def test_other_mistakes_are_raised_as_the_library_knows_them(fleet: Fleet) -> None:
    client = client_of(fleet)
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("nobody")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="a", input="x")  # which this model can't
    with pytest.raises(openai.PermissionDeniedError, match="set by its ModelDeployment"):
        client.post("/load_lora_adapter", cast_to=object, body={"lora_name": "x", "lora_path": "/x"})
    with pytest.raises(openai.AuthenticationError, match="asks for an API key") as caught:
        client_of(fleet, "sk-wrong").chat.completions.create(model="a", messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    forgetful = openai.OpenAI(base_url=fleet.urls[0], api_key=KEY, max_retries=0)
    with pytest.raises(openai.PermissionDeniedError, match="begins with /v1"):
        forgetful.chat.completions.create(model="a", messages=MESSAGES)
    answer = httpx.post(f"{fleet.urls[0]}/v1/completions", content=b"{half", headers={"Authorization": f"Bearer {KEY}"})
    assert (answer.status_code, "error" in answer.json()) == (400, True)
