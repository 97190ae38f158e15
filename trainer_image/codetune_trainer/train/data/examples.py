"""From one file to the pieces that are packed: plain text, or fill-in-the-middle examples."""

import random
from dataclasses import dataclass

from codetune_api.infilling import Format, Origin

from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.infilling import SENTINELS, infill
from codetune_trainer.train.data.packing import cut_pieces

ORIGIN_RATE = 0.5
"""Share of the files that begin with where they are from, as in StarCoder2's training: an editor may tell it or not."""
MOST_ORIGIN = 0.25
"""Most of a sequence that may go into saying where a file is from."""


@dataclass(frozen=True)
class Shaper:
    """How the files of a run become pieces of at most `length` tokens."""

    encoder: Encoder
    length: int
    fim: Format | None
    """None: no fill-in-the-middle, and no markers of a file's origin."""
    fim_rate: float
    """Share of the files that become fill-in-the-middle examples."""

    def make_pieces(self, text: str, plain: list[int], origin: Origin | None, chance: random.Random) -> list[list[int]]:
        """The pieces of a file, new ones in each epoch.

        Args:
            text: The file.
            plain: Its token ids with the end-of-document token.
            origin: Where it is from; None: not known.
            chance: What is drawn comes from here.
        """
        begin = self.encoder.begin
        if self.fim is None or not text:
            return cut_pieces(plain, self.length, begin)
        as_example, with_origin = chance.random() < self.fim_rate, chance.random() < ORIGIN_RATE
        origin, head = self._fit_origin(self.fim, origin if with_origin else None)
        if not as_example:
            return cut_pieces([*head, *plain], self.length, begin)
        # Each part of a long text is an example of its own, so that a middle always has its prefix and suffix in sight.
        room = self.length - len(begin)
        parts = self.encoder.cut(text, max(1, room - SENTINELS - 1 - len(head)))
        return [[*begin, *infill(part, self.encoder, self.fim, chance, room, origin)] for part in parts]

    def _fit_origin(self, found: Format, origin: Origin | None) -> tuple[Origin | None, list[int]]:
        """The origin with its tokens, or nothing where these take too much of a sequence."""
        if origin is None:
            return None, []
        head = found.document("", origin, self.encoder.encode_one)
        return (origin, head) if len(head) <= MOST_ORIGIN * self.length else (None, [])
