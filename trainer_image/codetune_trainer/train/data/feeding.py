"""The order of training data: a function of seed and epoch alone, so that a run can go on anywhere."""

import copy
import dataclasses
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from codetune_api.infilling import Format, Origin

from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.examples import Shaper
from codetune_trainer.train.data.infilling import hide_sentinels
from codetune_trainer.train.data.packing import Packed, join, pack


@dataclass(frozen=True)
class Corpus:
    """The training documents, and how they become sequences."""

    texts: Sequence[str]
    plain: Sequence[list[int]]
    """Token ids of each text with the end-of-document token."""
    encoder: Encoder
    length: int
    """Tokens in a sequence."""
    fim: Format | None
    """None: no fill-in-the-middle."""
    fim_rate: float
    """Share of the documents that become fill-in-the-middle examples."""
    seed: int
    shared: bool = True
    """Whether documents may share a sequence."""
    origins: Sequence[Origin] = ()
    """Where each text is from; empty: not known."""

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        return sum(map(len, self.plain))

    def epoch(self, number: int) -> Packed:
        """The sequences of one pass, in their order."""
        chance = random.Random(f"{self.seed}/{number}")
        order = chance.sample(range(len(self.texts)), len(self.texts))
        pieces = [piece for index in order for piece in self._pieces(index, chance)]
        packed = hide_sentinels(pack(pieces, self.length, self.encoder.padding, shared=self.shared), self.fim)
        return packed.choose(chance.sample(range(len(packed)), len(packed)))

    def _pieces(self, index: int, chance: random.Random) -> list[list[int]]:
        shaper = Shaper(self.encoder, self.length, self.fim, self.fim_rate)
        origin = self.origins[index] if self.origins else None
        return shaper.make_pieces(self.texts[index], self.plain[index], origin, chance)


@dataclass
class Position:
    """Where in the data a run is."""

    epoch: int = 0
    sequence: int = 0


def feed(corpus: Corpus, position: Position, sequences: int, batches: int) -> Iterator[Packed]:
    """So many batches of so many sequences from a position on; `position` moves along."""
    epoch, following = corpus.epoch(position.epoch), None
    for left in reversed(range(batches)):
        parts: list[Packed] = []
        missing = sequences
        while missing:
            if position.sequence >= len(epoch):
                position.epoch, position.sequence = position.epoch + 1, 0
                epoch, following = following() if following else corpus.epoch(position.epoch), None
            part = epoch.choose(slice(position.sequence, position.sequence + missing))
            position.sequence += len(part)
            missing -= len(part)
            parts.append(part)
        is_needed = left * sequences > len(epoch) - position.sequence
        if following is None and is_needed and position.sequence > len(epoch) // 2:
            following = _prepare(corpus, position.epoch + 1)
        yield join(parts)


def _prepare(corpus: Corpus, number: int) -> Callable[[], Packed]:
    """Make an epoch beside the training; returns what waits for it.

    Tokenizers are not made for two threads, so this one has its own. It ends with the process, whatever it is at:
    nobody who sends SIGTERM waits for it. If it fails, the same is tried again, and fails, where that is said.
    """
    found: list[Packed] = []
    ahead = dataclasses.replace(corpus, encoder=copy.deepcopy(corpus.encoder))
    thread = threading.Thread(target=lambda: found.append(ahead.epoch(number)), name="next epoch", daemon=True)
    thread.start()

    def wait() -> Packed:
        thread.join()
        return found[0] if found else corpus.epoch(number)

    return wait
