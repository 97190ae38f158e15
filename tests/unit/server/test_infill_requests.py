"""`suffix` in a completion request: token ids as the trainer lays its examples out; all else is left as it is.

A prompt that the client has laid out itself is read by vLLM's tokenizer to the same ids, in the format of each family.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from byte_tokenizer import STARCODER, build_byte_tokenizer
from codetune_server.infilling import Infiller, InfillMiddleware
from codetune_trainer.train.data.cutting import choose_cut
from codetune_trainer.train.data.encoding import build_encoder
from codetune_trainer.train.data.infilling import find_fim_tokens, infill
from starlette.types import Message, Receive, Scope, Send

FAMILIES = [
    pytest.param((*STARCODER, "<repo_name>", "<file_sep>"), id="StarCoder2"),
    pytest.param((*STARCODER, "<reponame>", "<filename>"), id="StarCoder"),
    pytest.param(
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>"),
        id="Qwen2.5-Coder",
    ),
    pytest.param(("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"), id="CodeGemma"),
    pytest.param(("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"), id="CodeLlama"),
    pytest.param(("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), id="DeepSeek-Coder"),
    pytest.param(("[PREFIX]", "[MIDDLE]", "[SUFFIX]"), id="Codestral"),
]
TEXT = "def add(a, b):\n    total = a + b\n    return total  # <fim_suffix>\n"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder with such a tokenizer."""

    def write(*special: str, begins: bool = False) -> Path:
        build_byte_tokenizer(*special, begins=begins).save_pretrained(str(tmp_path / "model"))
        return tmp_path / "model"

    return write


LAYOUTS = {
    "StarCoder2": "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
    "StarCoder": "<fim_prefix>{prefix}<fim_suffix>{suffix}<fim_middle>",
    "Qwen2.5-Coder": "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>",
    "CodeGemma": "<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>",
    "CodeLlama": "▁<PRE>{prefix}▁<SUF>{suffix}▁<MID>",
    "DeepSeek-Coder": "<｜fim▁begin｜>{prefix}<｜fim▁hole｜>{suffix}<｜fim▁end｜>",
    "Codestral": "[SUFFIX]{suffix}[PREFIX]{prefix}",
}
"""What editors write; a SentencePiece tokenizer has `▁` where CodeLlama's have a space."""
LAID_OUT = [pytest.param(*family.values, LAYOUTS[str(family.id)], id=family.id) for family in FAMILIES]


@pytest.mark.parametrize("special", FAMILIES)
@pytest.mark.parametrize("begins", [False, True], ids=["no token before a text", "a token before a text"])
def test_a_request_becomes_what_training_puts_before_the_middle(
    folder: Callable[..., Path], special: tuple[str, ...], begins: bool
) -> None:
    served = Infiller.load(folder(*special, begins=begins))
    tokenizer = build_byte_tokenizer(*special, begins=begins)
    encoder, found = build_encoder(tokenizer), find_fim_tokens(tokenizer)
    assert found is not None
    same = 0
    for seed in range(40):
        first, second = choose_cut(TEXT, random.Random(seed))
        prompt = served.build_prompt(TEXT[:first], TEXT[second:])
        trained = [*encoder.begin, *infill(TEXT, encoder, found, random.Random(seed), 500)]
        middle = [*encoder.encode_one(TEXT[first:second]), found.end]
        same += trained == [*prompt, *middle]
    assert same >= (30 if found.family.knows_both else 40)


class Recorder:
    """An application that keeps what it is asked."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request whose length is what its header says."""
        body = (await receive())["body"]
        assert int(dict(scope["headers"])[b"content-length"]) == len(body)
        self.bodies.append(body)
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b"{}"})


async def _post(model: Path, body: Any, path: str = "/v1/completions") -> tuple[httpx.Response, list[bytes]]:
    recorder = Recorder()
    transport = httpx.ASGITransport(InfillMiddleware(recorder, model))
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        response = await client.post(path, content=content, headers={"content-type": "application/json"})
    return response, recorder.bodies


async def test_a_suffix_is_rewritten_and_the_rest_of_the_request_stays(folder: Callable[..., Path]) -> None:
    model = folder(*STARCODER)
    body = {"model": "m", "prompt": "a", "suffix": "b", "max_tokens": 5, "stream": True, "stop_token_ids": [7]}
    response, (asked,) = await _post(model, body)
    tokens = build_byte_tokenizer(*STARCODER).get_vocab()
    assert response.status_code == 200
    assert json.loads(asked) == {
        "model": "m",
        "prompt": [tokens["<fim_prefix>"], tokens["a"], tokens["<fim_suffix>"], tokens["b"], tokens["<fim_middle>"]],
        "max_tokens": 5,
        "stream": True,
        "stop_token_ids": [7, tokens["</s>"], *(tokens[token] for token in STARCODER)],
    }


async def test_several_prompts_share_a_suffix(folder: Callable[..., Path]) -> None:
    _, (asked,) = await _post(folder(*STARCODER), {"prompt": ["a", "bb"], "suffix": "c"})
    assert [len(prompt) for prompt in json.loads(asked)["prompt"]] == [5, 6]


@pytest.mark.parametrize(("special", "layout"), LAID_OUT)
@pytest.mark.parametrize("begins", [False, True], ids=["no token before a text", "a token before a text"])
def test_a_prompt_that_the_client_lays_out_is_read_as_what_is_trained(
    folder: Callable[..., Path], special: tuple[str, ...], layout: str, begins: bool
) -> None:
    served = Infiller.load(folder(*special, begins=begins))
    read = build_byte_tokenizer(*special, begins=begins)(layout.format(prefix="a b\n", suffix="\tc\n"))["input_ids"]
    assert read == served.build_prompt("a b\n", "\tc\n")


@pytest.mark.parametrize(("special", "layout"), LAID_OUT)
@pytest.mark.parametrize("spell", [str, lambda text: text.replace("▁<", " <")], ids=["▁", "a space"])
async def test_a_prompt_that_the_client_lays_out_stays_and_ends_where_a_middle_does(
    folder: Callable[..., Path], special: tuple[str, ...], layout: str, spell: Callable[[str], str]
) -> None:
    model = folder(*special)
    body = {"prompt": spell(layout.format(prefix="def f(", suffix=")\n")), "stop": ["\n"], "stop_token_ids": [7]}
    _, (asked,) = await _post(model, body)
    expected = Infiller.load(model).format
    assert expected is not None
    assert json.loads(asked) == {**body, "stop_token_ids": [7, *expected.stops]}


async def test_a_model_with_the_tokens_of_two_families_takes_both_formats(folder: Callable[..., Path]) -> None:
    model = folder(*STARCODER, "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
    for layout in (LAYOUTS["StarCoder"], LAYOUTS["CodeGemma"]):
        prompt = layout.format(prefix="a", suffix="b")
        _, (asked,) = await _post(model, {"prompt": prompt})
        assert json.loads(asked)["prompt"] == prompt


async def test_several_prompts_may_be_laid_out(folder: Callable[..., Path]) -> None:
    prompts = [f"<fim_prefix>{text}<fim_suffix><fim_middle>" for text in "ab"]
    _, (asked,) = await _post(folder(*STARCODER), {"prompt": prompts})
    assert json.loads(asked)["prompt"] == prompts
    assert json.loads(asked)["stop_token_ids"]


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("PREFIX, SUFFIX = '<fim_prefix>', '<fim_suffix>'\n", id="code about the tokens"),
        pytest.param("<fim_prefix>a<fim_suffix>b<fim_middle>c", id="a middle that has begun"),
        pytest.param("STOPS = ['[SUFFIX]', '[PREFIX]']\n", id="code about the tokens of another model"),
        pytest.param(["<fim_prefix>a<fim_suffix>b<fim_middle>", "c"], id="one of two"),
    ],
)
async def test_a_prompt_that_holds_tokens_and_is_not_laid_out_passes_byte_by_byte(
    folder: Callable[..., Path], prompt: Any
) -> None:
    body = json.dumps({"prompt": prompt}, separators=(",", ":")).encode()
    assert (await _post(folder(*STARCODER), body))[1] == [body]


async def test_a_prompt_that_the_client_lays_out_needs_no_tokenizer(tmp_path: Path) -> None:
    body = b'{"prompt":"<fim_prefix>a<fim_suffix>b<fim_middle>"}'
    assert (await _post(tmp_path, body))[1] == [body]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/completions", b'{"prompt": "a",  "max_tokens": 1}', id="no suffix"),
        pytest.param("/v1/completions", b'{"prompt": "a suffix",  "suffix": null}', id="a suffix that is null"),
        pytest.param("/v1/completions", b"not json, suffix", id="no JSON"),
        pytest.param("/v1/chat/completions", b'{"suffix": "x"}', id="another route"),
    ],
)
async def test_other_requests_pass_byte_by_byte(folder: Callable[..., Path], path: str, body: bytes) -> None:
    response, bodies = await _post(folder(*STARCODER), body, path)
    assert (response.status_code, bodies) == (200, [body])


@pytest.mark.parametrize(
    ("param", "said", "special", "body"),
    [
        pytest.param("suffix", "leave `suffix` out", (), {"prompt": "a", "suffix": "b"}, id="a model without it"),
        pytest.param("suffix", "must be a text", STARCODER, {"prompt": "a", "suffix": 3}, id="no text"),
        pytest.param("prompt", "list of texts", STARCODER, {"prompt": [1, 2], "suffix": "b"}, id="tokens"),
        pytest.param("prompt", "list of texts", STARCODER, {"suffix": "b"}, id="no prompt"),
        pytest.param(
            "stop_token_ids",
            "a list of token ids",
            STARCODER,
            {"prompt": "a", "suffix": "b", "stop_token_ids": 7},
            id="7",
        ),
        pytest.param("echo", "leave one", STARCODER, {"prompt": "a", "suffix": "b", "echo": True}, id="echo"),
        pytest.param(
            "prompt",
            "has the fill-in-the-middle format <|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>, "
            "and this model's is <fim_prefix>P<fim_suffix>S<fim_middle>: set that one in the editor",
            STARCODER,
            {"prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"},
            id="the format of another model",
        ),
        pytest.param(
            "prompt",
            "format [SUFFIX]S[PREFIX]P, and this model has none: turn",
            (),
            {"prompt": "[SUFFIX]b[PREFIX]a"},
            id="a format, and a model without one",
        ),
        pytest.param(
            "stop_token_ids",
            "a list of token ids",
            STARCODER,
            {"prompt": "<fim_prefix>a<fim_suffix>b<fim_middle>", "stop_token_ids": "7"},
            id="7 as a text",
        ),
    ],
)
async def test_what_can_not_be_served_is_refused_by_field(
    folder: Callable[..., Path], param: str, said: str, special: tuple[str, ...], body: dict[str, Any]
) -> None:
    response, bodies = await _post(folder(*special), body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], bodies) == (400, param, [])
    assert said in error["message"]


async def test_a_folder_without_a_tokenizer_is_said(tmp_path: Path) -> None:
    response, _ = await _post(tmp_path, {"prompt": "a", "suffix": "b"})
    assert response.status_code == 400
    assert "can't be read" in response.json()["error"]["message"]
