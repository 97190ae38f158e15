"""Fixed samples of the held-out files, and what a model scores on them: loss, next lines, and middles."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import Parameters
from codetune_api.infilling import Format

from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.packing import IGNORED, Packed, cut_pieces, pack
from codetune_trainer.train.group import ALONE, Group
from codetune_trainer.train.model.losses import sum_loss
from codetune_trainer.train.model.modelling import Model
from codetune_trainer.train.model.stepping import autocast
from codetune_trainer.train.scoring.answering import LINE_TOKENS, MIDDLE_TOKENS, PROMPT_TOKENS
from codetune_trainer.train.scoring.questions import Question, ask_lines, ask_middles

MOST_TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Held-out tokens that a loss is measured on; a fixed choice, so that all checkpoints are comparable."""
LEAST_JUDGES = 10
"""Files of either half below which the held-out files are not halved: an interval over fewer says little."""
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


@dataclass(frozen=True)
class Samples:
    """The two samples of a run; one and the same where few files are held out."""

    choosing: HeldOut
    """What every checkpoint is measured on: the best one is chosen by it."""
    judging: HeldOut
    """What the base model and the best checkpoint are compared on."""

    @property
    def are_one(self) -> bool:
        """Whether the files that chose also judge."""
        return self.choosing is self.judging


def prepare(
    files: Sequence[DatasetFile],
    encoder: Encoder,
    length: int,
    device: Literal["cpu", "cuda"],
    *,
    shared: bool,
    fim: Format | None = None,
    questions: int = LEAST_QUESTIONS,
) -> Samples | None:
    """Fixed samples of the held-out files, smaller on a CPU; None when there is nothing to measure.

    Args:
        files: The held-out files.
        encoder: The tokenizer.
        length: Tokens in a sequence.
        device: Where the model is.
        shared: Whether files may share a sequence.
        fim: How middles are asked for; None: not at all.
        questions: Most questions of a kind, all of which are about files that judge.
    """
    choosing, judging = _halve(sorted((file for file in files if file.text), key=lambda file: (file.sha256, file.path)))
    found = _pack(judging, encoder, length, device, shared)
    if found is None:
        return None
    middles = ask_middles(judging, questions) if fim is not None else []
    asked = replace(found, lines=tuple(ask_lines(judging, questions)), middles=tuple(middles), fim=fim)
    chosen_by = None if choosing is judging else _pack(choosing, encoder, length, device, shared)
    return Samples(chosen_by or asked, asked)


def _halve(files: list[DatasetFile]) -> tuple[list[DatasetFile], list[DatasetFile]]:
    """The files that checkpoints are chosen by, and those that the result is judged by.

    The best of many checkpoints does better on what it was chosen by than elsewhere. A file's half follows from its
    content, so that it is the same in later runs, also in one that begins with this run's adapter.
    """
    halves: tuple[list[DatasetFile], list[DatasetFile]] = ([], [])
    for file in files:
        # The last digit of the digest: the first ones say which pieces are taken.
        halves[int(file.sha256[-1], 16) % 2].append(file)
    return halves if min(map(len, halves)) >= LEAST_JUDGES else (files, files)


def _pack(
    files: Sequence[DatasetFile], encoder: Encoder, length: int, device: Literal["cpu", "cuda"], shared: bool
) -> HeldOut | None:
    chosen = list(_choose_pieces(files, encoder, length, MOST_TOKENS[device]))
    packed = pack([piece for _, piece in chosen], length, encoder.padding, shared=shared)
    if not packed.targets:
        return None
    names = tuple(dict.fromkeys(path for path, _ in chosen))
    # Packing goes by sizes alone, so that these lie exactly where the pieces do.
    owners = pack([[names.index(path)] * len(piece) for path, piece in chosen], length, -1, shared=shared).tokens
    return HeldOut(packed, owners, names)


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
