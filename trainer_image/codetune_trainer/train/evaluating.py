"""A fixed sample of the held-out files, and what a model scores on it: loss, next lines, and middles."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import Parameters
from codetune_api.infilling import Format

from codetune_trainer.train.answering import LINE_TOKENS, MIDDLE_TOKENS, PROMPT_TOKENS
from codetune_trainer.train.encoding import Encoder
from codetune_trainer.train.group import ALONE, Group
from codetune_trainer.train.losses import sum_loss
from codetune_trainer.train.modelling import Model
from codetune_trainer.train.packing import IGNORED, Packed, cut_pieces, pack
from codetune_trainer.train.questions import Question, ask_lines, ask_middles
from codetune_trainer.train.stepping import autocast

MOST_TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Held-out tokens that a loss is measured on; a fixed choice, so that all checkpoints are comparable."""
LEAST_QUESTIONS = 16
MOST_QUESTIONS = {"cpu": 128, "cuda": 512}
"""Questions of a kind."""
SHARE = 0.05
"""Share of a run's work that goes into answers, base and tuned model together."""
# A token that is generated alone takes as long as so many that are read at once.
_GENERATED = {"cpu": 12, "cuda": 40}


@dataclass(frozen=True)
class HeldOut:
    """What evaluation uses."""

    packed: Packed
    owners: torch.Tensor
    """Index into `names` of the file that each token is from, -1 for none; shape as `packed.tokens`."""
    names: tuple[str, ...]
    lines: tuple[Question, ...] = ()
    middles: tuple[Question, ...] = ()
    fim: Format | None = None

    @property
    def files(self) -> int:
        """How many files the tokens are from."""
        return len(self.names)

    @property
    def tokens(self) -> int:
        """Tokens that carry loss."""
        return self.packed.targets

    def digest(self) -> str:
        """Of everything that is asked: equal digests, comparable scores."""
        asked = repr((self.packed.tokens.tolist(), self.names, self.lines, self.middles, self.fim))
        return hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()


def prepare(
    files: Sequence[DatasetFile],
    encoder: Encoder,
    length: int,
    device: Literal["cpu", "cuda"],
    *,
    shared: bool,
    fim: Format | None = None,
    questions: int = LEAST_QUESTIONS,
) -> HeldOut | None:
    """A fixed sample of the held-out files, smaller on a CPU; None when there is nothing to measure.

    Args:
        files: The held-out files.
        encoder: The tokenizer.
        length: Tokens in a sequence.
        device: Where the model is.
        shared: Whether files may share a sequence.
        fim: How middles are asked for; None: not at all.
        questions: Most questions of a kind.
    """
    ordered = sorted((file for file in files if file.text), key=lambda file: (file.sha256, file.path))
    chosen = list(_choose_pieces(ordered, encoder, length, MOST_TOKENS[device]))
    packed = pack([piece for _, piece in chosen], length, encoder.padding, shared=shared)
    if not packed.targets:
        return None
    names = tuple(dict.fromkeys(path for path, _ in chosen))
    # Packing goes by sizes alone, so that these lie exactly where the pieces do.
    owners = pack([[names.index(path)] * len(piece) for path, piece in chosen], length, -1, shared=shared).tokens
    middles = ask_middles(ordered, questions) if fim is not None else []
    return HeldOut(packed, owners, names, tuple(ask_lines(ordered, questions)), tuple(middles), fim)


def count_questions(parameters: Parameters, device: Literal["cpu", "cuda"], *, middles: bool) -> int:
    """How many questions of a kind take `SHARE` of the run's work, counted in tokens read: no clock is asked."""
    run = 3 * parameters.max_steps * parameters.batch_tokens  # forward, and twice that backward
    one = PROMPT_TOKENS + _GENERATED[device] * LINE_TOKENS
    if middles:
        one += 2 * PROMPT_TOKENS + _GENERATED[device] * MIDDLE_TOKENS
    return max(LEAST_QUESTIONS, min(MOST_QUESTIONS[device], int(SHARE * run / (2 * one))))


def _choose_pieces(
    files: Sequence[DatasetFile], encoder: Encoder, length: int, most: int
) -> Iterator[tuple[str, list[int]]]:
    """(path, piece): one piece of each file, then another of each …, so that many files have a say."""
    documents: list[list[tuple[str, list[int]]]] = []
    for file in files[: max(1, 2 * most // length)]:
        tokens = [*encoder.encode_one(file.text), encoder.end]
        pieces = [(file.path, piece) for piece in cut_pieces(tokens, length, encoder.begin)]
        # Not always where files begin: imports and licences are all alike.
        first = int(file.sha256[:8], 16) % len(pieces)
        documents.append(pieces[first:] + pieces[:first])
    left = most
    for entry in itertools.chain.from_iterable(itertools.zip_longest(*documents)):
        if left <= 0:
            return
        if entry is not None:
            path, piece = entry
            yield path, piece[:left]
            left -= len(piece)


@torch.no_grad()
def mean_loss(
    model: Model, held_out: HeldOut, rows: int, precision: str, between: Callable[[], None], group: Group = ALONE
) -> float:
    """Mean cross-entropy over the held-out targets, in nats per token; `rows` sequences at once."""
    return _sum(model, held_out.packed, rows, precision, between, group) / held_out.tokens


@torch.no_grad()
def file_losses(
    model: Model, held_out: HeldOut, rows: int, precision: str, between: Callable[[], None], group: Group = ALONE
) -> list[tuple[float, int]]:
    """(sum of the cross-entropies, targets) of each file, in the order of `names`."""
    found = []
    for index in range(held_out.files):
        of_file = held_out.owners == index
        holding = of_file.any(dim=1)
        part = held_out.packed.choose(holding.nonzero()[:, 0].tolist())
        labels = part.labels.masked_fill(~of_file[holding], IGNORED)
        masked = Packed(part.tokens, labels, part.positions, part.segments)
        found.append((_sum(model, masked, rows, precision, between, group) if masked.targets else 0.0, masked.targets))
    return found


def _sum(model: Model, packed: Packed, rows: int, precision: str, between: Callable[[], None], group: Group) -> float:
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    try:
        for mine, counts in group.take_turns(len(packed), rows):
            between()
            with autocast(precision, device):
                loss = sum_loss(model, packed.choose(mine).to(device)).item()
            total += loss if counts else 0.0
    finally:
        model.train(was_training)
    return group.add(total)
