"""`suffix` in a completion request: token ids as the trainer lays its examples out; all else is left as it is."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from codetune_server.infilling import Infiller, InfillMiddleware
from codetune_trainer.train.data.cutting import choose_cut
from codetune_trainer.train.data.encoding import build_encoder
from codetune_trainer.train.data.infilling import find_fim_tokens, infill
from starlette.types import Message, Receive, Scope, Send
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

STARCODER = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
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


def _build(*special: str, begins: bool = False) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>", *special)])
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 256)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model folder with such a tokenizer."""

    def write(*special: str, begins: bool = False) -> Path:
        _build(*special, begins=begins).save_pretrained(str(tmp_path / "model"))
        return tmp_path / "model"

    return write


@pytest.mark.parametrize("special", FAMILIES)
@pytest.mark.parametrize("begins", [False, True], ids=["no token before a text", "a token before a text"])
def test_a_request_becomes_what_training_puts_before_the_middle(
    folder: Callable[..., Path], special: tuple[str, ...], begins: bool
) -> None:
    served = Infiller.load(folder(*special, begins=begins))
    tokenizer = _build(*special, begins=begins)
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
    tokens = _build(*STARCODER).get_vocab()
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
