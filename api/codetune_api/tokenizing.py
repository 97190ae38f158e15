"""Tokenizers as their publishers made them, whatever a library makes of the names of their classes.

From release 5 on transformers builds the tokenizers of some classes anew out of their vocabulary, with the steps that
it knows the class to have, and no longer with those in `tokenizer.json`. DeepSeek-Coder says `LlamaTokenizerFast` and
is a byte-level tokenizer: all its spaces and line breaks are lost. StarCoder2 says `GPT2Tokenizer` and splits digits
off first: code that is indented before a digit gets other tokens than it was trained with. CodeLlama's class cuts
texts where they spell `<FILL_ME>`. A copy of such a tokenizer that names the class which takes the file as it is says
what the publisher meant, to every library that reads it.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
_BESIDE = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_AS_IT_IS = "PreTrainedTokenizerFast"
_BYTES = "ByteLevel"
_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "CodeLlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "GPT2Tokenizer": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
}
"""Special tokens that these classes have when the configuration names none."""
_BEGIN_BY_DEFAULT = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer"})
"""Classes that put their begin of text before every text, unless they are told not to."""

Json = dict[str, Any]


def write_plain(folder: Path, target: Path) -> bool:
    """Copy a model's tokenizer so that it is read as it was published, where its class's name would prevent that.

    Args:
        folder: Of the model.
        target: A folder that is there; it gets the copy.

    Returns:
        Whether a copy was necessary; if not, nothing was written.

    Raises:
        OSError: A file can't be read or written.
        ValueError: A file is no JSON.
    """
    if not (folder / TOKENIZER).is_file() or not (folder / CONFIG).is_file():
        return False
    tokenizer, config = (json.loads((folder / name).read_bytes()) for name in (TOKENIZER, CONFIG))
    if not is_misread(tokenizer, config):
        return False
    for name in _BESIDE:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
    (target / TOKENIZER).write_text(json.dumps(mark_borders(tokenizer, config), ensure_ascii=False), encoding="utf-8")
    (target / CONFIG).write_text(json.dumps(describe_plain(tokenizer, config), ensure_ascii=False), encoding="utf-8")
    return True


def is_misread(tokenizer: Json, config: Json) -> bool:
    """Whether the class that a tokenizer's configuration names is built with other steps than `tokenizer.json` has."""
    kind, steps = _class_of(config), _steps(tokenizer.get("pre_tokenizer"))
    return (
        kind == "CodeLlamaTokenizer"
        or (kind == "LlamaTokenizer" and _BYTES in steps)
        or (kind == "GPT2Tokenizer" and steps != [_BYTES])
    )


def describe_plain(tokenizer: Json, config: Json) -> Json:
    """The configuration with the class that takes the file as it is, and with what the named one has by default."""
    known = _ids(tokenizer)
    defaults = {role: token for role, token in _DEFAULTS[_class_of(config)].items() if token in known}
    named = {role: value for role, value in config.items() if value is not None}
    return {**defaults, **named, "tokenizer_class": _AS_IT_IS}


def mark_borders(tokenizer: Json, config: Json) -> Json:
    """The tokenizer with what its class puts before and behind every text, which is not always in the file."""
    plain, kind = describe_plain(tokenizer, config), _class_of(config)
    begin = config.get("add_bos_token", kind in _BEGIN_BY_DEFAULT)
    end = config.get("add_eos_token", False)
    if kind not in _BEGIN_BY_DEFAULT and not (begin or end):
        return tokenizer
    known = _ids(tokenizer)
    first = _content(plain.get("bos_token")) if begin else ""
    last = _content(plain.get("eos_token")) if end else ""
    around = [token for token in (first, last) if token in known]
    template = {
        "type": "TemplateProcessing",
        "single": _surround("A", 0, first, last, known),
        "pair": [*_surround("A", 0, first, last, known), *_surround("B", 1, first, last, known)],
        "special_tokens": {token: {"id": token, "ids": [known[token]], "tokens": [token]} for token in around},
    }
    # What stands in the file besides says how offsets are counted, and stays.
    kept = [step for step in _processors(tokenizer.get("post_processor")) if step["type"] != template["type"]]
    steps = [*kept, template] if around else kept
    return {**tokenizer, "post_processor": {"type": "Sequence", "processors": steps} if steps else None}


def _surround(name: str, number: int, first: str, last: str, known: Mapping[str, int]) -> list[Json]:
    def token(content: str) -> list[Json]:
        return [{"SpecialToken": {"id": content, "type_id": number}}] if content in known else []

    return [*token(first), {"Sequence": {"id": name, "type_id": number}}, *token(last)]


def _class_of(config: Json) -> str:
    return str(config.get("tokenizer_class") or "").removesuffix("Fast")


def _steps(pre_tokenizer: Json | None) -> list[str]:
    """Types of the steps, one after the other."""
    if not pre_tokenizer:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [step for each in pre_tokenizer["pretokenizers"] for step in _steps(each)]
    return [str(pre_tokenizer.get("type"))]


def _processors(processor: Json | None) -> list[Json]:
    if not processor:
        return []
    return list(processor["processors"]) if processor.get("type") == "Sequence" else [processor]


def _ids(tokenizer: Json) -> dict[str, int]:
    """Every token of the vocabulary, those that were added to it among them."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    found = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    return found | {added["content"]: added["id"] for added in tokenizer.get("added_tokens", [])}


def _content(token: Any) -> str:
    """A special token as the configuration spells it: a text, or a description of one."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
