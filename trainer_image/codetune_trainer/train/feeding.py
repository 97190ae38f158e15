"""The order of training data: a function of seed and epoch alone, so that a run can go on anywhere."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from codetune_trainer.train.infilling import FimTokens, infill
from codetune_trainer.train.packing import Packed, pack


@dataclass(frozen=True)
class Corpus:
    """The training documents, and how they become sequences."""

    texts: list[str]
    plain: list[list[int]]
    """Token ids of each text with the end-of-document token."""
    tokenizer: Any
    end: int
    padding: int
    length: int
    fim: FimTokens | None
    fim_rate: float
    seed: int

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return sum(map(len, self.plain))

    def epoch(self, number: int) -> Packed:
        """The sequences of one pass, in their order."""
        chance = random.Random(f"{self.seed}/{number}")
        order = chance.sample(range(len(self.texts)), len(self.texts))
        packed = pack([self._document(index, chance) for index in order], self.length, self.padding)
        shuffled = chance.sample(range(len(packed)), len(packed))
        return Packed(
            packed.tokens[shuffled], packed.labels[shuffled], packed.positions[shuffled], packed.segments[shuffled]
        )

    def _document(self, index: int, chance: random.Random) -> list[int]:
        if self.fim is None or chance.random() >= self.fim_rate:
            return self.plain[index]
        return [*infill(self.texts[index], self.tokenizer, self.fim, chance), self.end]


@dataclass
class Position:
    """Where in the data a run is."""

    epoch: int = 0
    sequence: int = 0


def feed(corpus: Corpus, position: Position, sequences: int) -> Iterator[Packed]:
    """Batches of so many sequences from a position on, for ever; `position` moves along."""
    epoch = corpus.epoch(position.epoch)
    while True:
        parts: list[Packed] = []
        missing = sequences
        while missing:
            if position.sequence >= len(epoch):
                position.epoch, position.sequence = position.epoch + 1, 0
                epoch = corpus.epoch(position.epoch)
            part = epoch.rows(position.sequence, position.sequence + missing)
            position.sequence += len(part)
            missing -= len(part)
            parts.append(part)
        yield _join(parts)


def _join(parts: list[Packed]) -> Packed:
    if len(parts) == 1:
        return parts[0]
    return Packed(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.positions for part in parts]),
        torch.cat([part.segments for part in parts]),
    )
