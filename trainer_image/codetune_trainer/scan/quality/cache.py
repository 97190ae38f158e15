"""Losses that were measured, kept in the store: one text file for each model, a line for each content.

A line is added when a loss is known and counts once its end is there, so a killed scan loses what was on its way and
nothing else. A file that is damaged loses the lines that are; they are measured again.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from codetune_api.digests import describe_file, digest_files, digest_value

VERSION = 1
"""Of what a loss is; another one makes all that was measured worthless."""
_ENDING = ".losses"
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9.]+|nan|inf) ([0-9]+)\n")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PARTS = ("config.json", "tokenizer.json", "*.safetensors")
"""Files of a model that a loss depends on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The loss of one text."""

    loss: float
    """Mean over its tokens, in nats per token, to three places."""
    tokens: int
    """How many tokens the mean is over."""


def name_model(folder: Path, store: Path) -> str:
    """What a model is, wherever it lies: its commit where the store has it under that, else the digest of its files."""
    real = folder.resolve()
    if _COMMIT.fullmatch(real.name) and real.is_relative_to((store / "models").resolve()):
        return real.name
    files = sorted({path for part in _PARTS for path in folder.glob(part) if path.is_file()})
    return digest_files({path.name: describe_file(path) for path in files})


def prune_losses(folder: Path, model: str) -> None:
    """Remove what was measured under other models."""
    for path in folder.glob(f"*{_ENDING}"):
        if path.name != _name(model):
            path.unlink()


def _name(model: str) -> str:
    return f"{digest_value([VERSION, model]).removeprefix('sha256:')[:32]}{_ENDING}"


class LossCache:
    """The losses of one model.

    Args:
        folder: Where the files of all models are.
        model: As `name_model` gives it.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._path = folder / _name(model)
        self._known: dict[bytes, Measured] = {}
        self._asked: set[bytes] = set()
        self._file: BinaryIO | None = None

    def __enter__(self) -> "LossCache":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if self._path.exists():
            whole = self._load()
        self._file = self._path.open("ab")
        self._file.truncate(whole)  # what a kill left of a line
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def was_asked(self, digest: bytes) -> bool:
        """Whether this text was found, or added, in this scan already."""
        return digest in self._asked

    def find(self, digest: bytes) -> Measured | None:
        """The loss of a text; None when it was never measured."""
        known = self._known.get(digest)
        if known is not None:
            self._asked.add(digest)
        return known

    def add(self, measured: Mapping[bytes, Measured]) -> None:
        """Keep losses; they are on the disk when this returns."""
        assert self._file is not None
        self._known.update(measured)
        self._asked.update(measured)
        self._file.write(b"".join(_render(measured.items())))
        self._file.flush()
        os.fsync(self._file.fileno())

    def keep_asked(self) -> None:
        """Forget the losses of texts that nobody asked for since this was opened: their files are gone."""
        if len(self._asked) == len(self._known):
            return
        self._known = {digest: measured for digest, measured in self._known.items() if digest in self._asked}
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.writelines(_render(self._known.items()))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)

    def _load(self) -> int:
        """Read what is there; returns where its last whole line ends, in bytes."""
        end = 0
        with self._path.open("rb") as lines:
            for line in lines:
                found = _LINE.fullmatch(line)
                if found is not None:
                    self._known[bytes.fromhex(found[1].decode())] = Measured(float(found[2]), int(found[3]))
                end += len(line) if line.endswith(b"\n") else 0
        return end


def _render(measured: Iterable[tuple[bytes, Measured]]) -> Iterable[bytes]:
    return (f"{digest.hex()} {entry.loss:.3f} {entry.tokens}\n".encode() for digest, entry in measured)
