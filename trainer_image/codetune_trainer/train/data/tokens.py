"""Tokens of a dataset, kept beside it: a second run on the same files with the same tokenizer does not make them again.

A cache holds one number a token and where each text ends. Whatever does not fit is made anew: a cache can cost time,
never a run.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from codetune_trainer.train.data.encoding import Encoder

FOLDER = "tokens"
"""Inside the dataset's folder."""
_LEAST_TEXT = 1_000_000
"""Characters from which on keeping tokens is worth a file."""


def tokenize(texts: Sequence[str], encoder: Encoder, dataset: Path, revision: str) -> list[list[int]]:
    """Token ids of each text, from the cache where it holds them."""
    if sum(map(len, texts)) < _LEAST_TEXT:
        return encoder.encode(texts)
    path = dataset / FOLDER / f"{_name(encoder, revision)}.safetensors"
    found = _read(path, len(texts), len(encoder.tokenizer))
    if found is None:
        found = encoder.encode(texts)
        with contextlib.suppress(OSError):  # a full or read-only store: the run goes on without
            _write(path, found)
    return found


def _name(encoder: Encoder, revision: str) -> str:
    """Of the cache for these files and this tokenizer, whatever folder it came from."""
    rules = encoder.tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(f"{revision}\n{rules}".encode()).hexdigest()[:32]


def _write(path: Path, rows: list[list[int]]) -> None:
    path.parent.mkdir(exist_ok=True)
    ids = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    ends = torch.tensor([len(row) for row in rows], dtype=torch.int64).cumsum(0)
    part = path.with_name(f".{path.stem}.{os.getpid()}")  # another run may be doing the same
    try:
        save_file({"ids": ids, "ends": ends}, part, metadata={"sha256": _digest(ids, ends)})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _digest(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, texts: int, vocabulary: int) -> list[list[int]] | None:
    """The rows of a cache; None when there is none, or not a whole one of so many texts."""
    try:
        with safe_open(path, framework="pt") as file:
            ids, ends = file.get_tensor("ids"), file.get_tensor("ends")
            told: dict[str, Any] = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    if (ids.dtype, ends.dtype, ends.shape) != (torch.int32, torch.int64, (texts,)):
        return None
    if told.get("sha256") != _digest(ids, ends) or not _fits(ids, ends, vocabulary):
        return None
    starts = torch.cat([ends.new_zeros(1), ends[:-1]]).tolist()
    return [ids[start:stop].tolist() for start, stop in zip(starts, ends.tolist(), strict=True)]


def _fits(ids: torch.Tensor, ends: torch.Tensor, vocabulary: int) -> bool:
    """Whether every number is a token, and the texts follow each other to the last one."""
    lengths = torch.diff(ends, prepend=ends.new_zeros(1))
    known = not ids.numel() or bool(ids.min() >= 0 and ids.max() < vocabulary)
    return known and bool((lengths >= 0).all()) and int(lengths.sum()) == ids.numel()
