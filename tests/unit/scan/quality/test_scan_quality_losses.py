"""The loss of a file: as transformers itself gives it, and what follows from it.

Skipped on purpose: GPUs and bf16, which the machines of these tests lack; how good the rule is at finding bad files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.scan.quality.cache import Measured
from codetune_trainer.scan.quality.measuring import LEAST_TOKENS, MOST_TOKENS, judge_loss
from codetune_trainer.scan.quality.model import load_meter
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

URI = "file:///tiny"
WINDOW = 128
PLAIN = "def add(left, right):\n    return left + right\n" * 4
DENSE = "".join(chr(33 + (number * 37) % 90) for number in range(160)) + "\n"


def stock_loss(folder: Path, text: str, begin: Sequence[int] = ()) -> float:
    """The loss of a text as transformers computes it from `labels`, window by window."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    letters = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    (told,) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    tokens = [letters[letter] for letter in told[0]][:MOST_TOKENS]
    room, total, count = WINDOW - len(begin), 0.0, 0
    for at in range(0, len(tokens), room):
        ids = torch.tensor([[*begin, *tokens[at : at + room]]])
        if ids.shape[1] > 1:
            with torch.no_grad():
                total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    return total / count


TEXTS = {
    "a few tokens": "x = 1\n",
    "a whole window": PLAIN[:WINDOW],
    "one token more than a window": PLAIN[: WINDOW + 1],
    "several windows": PLAIN * 3,
    "more than is measured": DENSE * 20,
    "letters of several bytes": "größe = 'Ü'  # 漢字\n" * 3,
    "the end of text, spelled out": "a = '</s>'\n",
}
KINDS: dict[str, dict[str, bool]] = {
    "plain": {},
    "with a token before each text": {"begins": True},
    "with a sliding window": {"sliding": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_the_one_that_transformers_computes_from_labels(
    monkeypatch: pytest.MonkeyPatch, save_model: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr("codetune_trainer.train.machine.has_fast_bf16", lambda device: False)
    folder = save_model(tmp_path / "model", **KINDS[kind])
    meter = load_meter(folder, URI, "cpu")
    begin = [256] if KINDS[kind].get("begins") else []
    expected = {name: stock_loss(folder, text, begin) for name, text in TEXTS.items()}

    found = dict(zip(TEXTS, meter.measure(list(TEXTS.values())), strict=True))

    assert {name: entry.loss for name, entry in found.items()} == pytest.approx(expected, abs=1e-3)
    assert found["more than is measured"].tokens == MOST_TOKENS - (0 if begin else MOST_TOKENS // WINDOW)


@pytest.mark.parametrize("bf16", [pytest.param(False, id="float32"), pytest.param(True, id="bf16")])
def test_a_loss_does_not_depend_on_what_else_is_measured(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, bf16: bool
) -> None:
    monkeypatch.setattr("codetune_trainer.train.machine.has_fast_bf16", lambda device: bf16)
    meter = load_meter(tiny, URI, "cpu")
    together = meter.measure(list(TEXTS.values()))
    assert together == [meter.measure([text])[0] for text in TEXTS.values()]
    expected = [stock_loss(tiny, text) for text in TEXTS.values()]
    assert [entry.loss for entry in together] == pytest.approx(expected, rel=5e-3)


def test_a_text_without_a_second_token_has_no_loss(tiny: Path) -> None:
    assert load_meter(tiny, URI, "cpu").measure(["x", PLAIN, ""])[::2] == [Measured(0.0, 0)] * 2


@pytest.mark.parametrize(
    ("expected", "loss", "tokens", "limit"),
    [
        pytest.param(None, 2.999, 500, 3.0, id="below"),
        pytest.param(None, 3.0, 500, 3.0, id="at the limit"),
        pytest.param("loss 3.420 above 3", 3.42, 500, 3.0, id="above"),
        pytest.param("loss 0.501 above 0.5", 0.501, 500, 0.5, id="by another limit"),
        pytest.param(None, 9.0, LEAST_TOKENS - 1, 3.0, id="too short to be judged"),
        pytest.param("loss 9.000 above 3", 9.0, LEAST_TOKENS, 3.0, id="just long enough"),
        pytest.param("loss nan above 3", float("nan"), 500, 3.0, id="no number"),
    ],
)
def test_a_file_is_rejected_above_the_limit(expected: str | None, loss: float, tokens: int, limit: float) -> None:
    assert judge_loss(Measured(loss, tokens), limit) == expected
