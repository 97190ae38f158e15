"""Tokens kept beside a dataset: the same as made anew, for these files and this tokenizer only, and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.train.data import tokens
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.data.tokens import tokenize
from safetensors.torch import save_file

TEXTS = ["def add(a, b):\n", "", "    return a + b\n"]


@pytest.fixture(autouse=True)
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LEAST_TEXT", 1)


def _count(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made = [0]
    encode = Encoder.encode

    def counting(self: Encoder, texts: Any) -> list[list[int]]:
        made[0] += 1
        return encode(self, texts)

    monkeypatch.setattr(Encoder, "encode", counting)
    return made


def _cache(folder: Path) -> Path:
    (path,) = (folder / tokens.FOLDER).iterdir()
    return path


def test_tokens_are_made_once_for_the_same_files(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = encoder.encode(TEXTS)
    made = _count(encoder, monkeypatch)
    assert [tokenize(TEXTS, encoder, tmp_path, "revision") for _ in range(3)] == [wanted] * 3
    assert made == [1]


def test_other_files_or_another_tokenizer_have_their_own(
    tmp_path: Path, encoder: Encoder, make_tokenizer: Callable[..., Any]
) -> None:
    other = build_encoder(make_tokenizer("<fim_prefix>"))
    for one, revision in ((encoder, "first"), (encoder, "second"), (other, "first")):
        assert tokenize(TEXTS, one, tmp_path, revision) == one.encode(TEXTS)
    assert len(list((tmp_path / tokens.FOLDER).iterdir())) == 3


def _replace(path: Path, ids: list[int], ends: list[int]) -> None:
    """A cache that is whole, but holds something else."""
    numbers, places = torch.tensor(ids, dtype=torch.int32), torch.tensor(ends)
    save_file({"ids": numbers, "ends": places}, path, metadata={"sha256": tokens._digest(numbers, places)})


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-4]), id="cut short"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), id="one byte changed"),
        pytest.param(lambda path: path.write_text("tokens"), id="no such file format"),
        pytest.param(lambda path: _replace(path, [1, 2], [1, 2]), id="another number of texts"),
        pytest.param(lambda path: _replace(path, [1, 2, 9_999], [1, 2, 3]), id="a token that does not exist"),
        pytest.param(lambda path: _replace(path, [1, 2, 3], [2, 1, 3]), id="texts that end before they begin"),
        pytest.param(lambda path: _replace(path, [1, 2, 3], [1, 2, 2]), id="tokens of no text"),
    ],
)
def test_a_cache_that_is_not_whole_is_made_anew(
    tmp_path: Path, encoder: Encoder, damage: Callable[[Path], object]
) -> None:
    tokenize(TEXTS, encoder, tmp_path, "revision")
    whole = _cache(tmp_path).read_bytes()
    damage(_cache(tmp_path))
    assert tokenize(TEXTS, encoder, tmp_path, "revision") == encoder.encode(TEXTS)
    assert _cache(tmp_path).read_bytes() == whole


def test_a_store_that_takes_no_cache_costs_time_only(tmp_path: Path, encoder: Encoder) -> None:
    (tmp_path / tokens.FOLDER).write_text("in the way")
    assert tokenize(TEXTS, encoder, tmp_path, "revision") == encoder.encode(TEXTS)


def test_little_text_gets_no_file(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_LEAST_TEXT", 1_000)
    assert tokenize(TEXTS, encoder, tmp_path, "revision") == encoder.encode(TEXTS)
    assert not list(tmp_path.iterdir())
