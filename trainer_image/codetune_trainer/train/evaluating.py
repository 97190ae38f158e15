"""Is the tuned model better than its base on held-out code? Loss on packed files, and next lines to the letter."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import Evaluation, EvaluationScores

from codetune_trainer.train.encoding import Encoder
from codetune_trainer.train.losses import sum_loss
from codetune_trainer.train.modelling import Model
from codetune_trainer.train.packing import Packed, cut_pieces, pack
from codetune_trainer.train.stepping import autocast

MOST_TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Held-out tokens that a loss is measured on; a fixed choice, so that all checkpoints are comparable."""
LINES = {"cpu": 16, "cuda": 64}
"""Held-out lines that are completed."""
LINES_A_FILE = 4
PROMPT_TOKENS = 192
ANSWER_TOKENS = 24
_ROWS = 8
"""Lines that are completed at once."""


@dataclass(frozen=True)
class HeldOut:
    """What evaluation uses."""

    packed: Packed
    files: int
    """How many files the tokens are from."""
    questions: list[tuple[str, str]]
    """(text before a line, the line)."""

    @property
    def tokens(self) -> int:
        """Tokens that carry loss."""
        return self.packed.targets


def prepare(
    files: Sequence[DatasetFile], encoder: Encoder, length: int, device: Literal["cpu", "cuda"], *, shared: bool
) -> HeldOut | None:
    """A fixed sample of the held-out files, smaller on a CPU; None when there is nothing to measure."""
    ordered = sorted((file for file in files if file.text), key=lambda file: (file.sha256, file.path))
    chosen = list(_choose_pieces(ordered, encoder, length, MOST_TOKENS[device]))
    packed = pack([piece for _, piece in chosen], length, encoder.padding, shared=shared)
    if not packed.targets:
        return None
    questions = _choose_lines(ordered, random.Random("held-out"))
    return HeldOut(packed, len({path for path, _ in chosen}), questions[: LINES[device]])


def _choose_pieces(
    files: Sequence[DatasetFile], encoder: Encoder, length: int, most: int
) -> Iterator[tuple[str, list[int]]]:
    """(path, piece): the first piece of each file, then the second of each …, so that no large file takes it all."""
    documents: list[list[tuple[str, list[int]]]] = []
    found = 0
    for file in files:
        tokens = [*encoder.encode([file.text])[0], encoder.end]
        documents.append([(file.path, piece) for piece in cut_pieces(tokens, length, encoder.begin)])
        found += len(tokens)
        if found >= 4 * most:  # enough to choose from
            break
    left = most
    for entry in itertools.chain.from_iterable(itertools.zip_longest(*documents)):
        if left <= 0:
            return
        if entry is not None:
            path, piece = entry
            yield path, piece[:left]
            left -= len(piece)


def _choose_lines(files: Sequence[DatasetFile], chance: random.Random) -> list[tuple[str, str]]:
    """Lines that are worth completing, in random order."""
    found = []
    for file in files[:256]:
        lines = file.text.splitlines(keepends=True)
        places = [index for index in range(3, len(lines)) if len(lines[index].strip()) >= 8]
        chosen = chance.sample(places, min(LINES_A_FILE, len(places)))
        found += [("".join(lines[:index]), lines[index]) for index in chosen]
    return chance.sample(found, len(found))


@torch.no_grad()
def mean_loss(model: Model, held_out: HeldOut, rows: int, precision: str, between: Callable[[], None]) -> float:
    """Mean cross-entropy over the held-out targets, in nats per token; `rows` sequences at once."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    try:
        for start in range(0, len(held_out.packed), rows):
            between()
            with autocast(precision, device):
                batch = held_out.packed.choose(slice(start, start + rows)).to(device)
                total += sum_loss(model, batch).item()
    finally:
        model.train(was_training)
    return total / held_out.tokens


@torch.no_grad()
def exact_match(model: Model, encoder: Encoder, held_out: HeldOut, between: Callable[[], None]) -> float | None:
    """Share of the questions whose line greedy decoding gives to the letter, white space at its ends aside."""
    if not held_out.questions:
        return None
    was_training = model.training
    model.eval()
    hits = 0
    try:
        for start in range(0, len(held_out.questions), _ROWS):
            between()
            part = held_out.questions[start : start + _ROWS]
            answers = _continue(model, encoder, [prompt for prompt, _ in part])
            hits += sum(_first_line(answer) == line.strip() for answer, (_, line) in zip(answers, part, strict=True))
    finally:
        model.train(was_training)
    return hits / len(held_out.questions)


def _continue(model: Model, encoder: Encoder, prompts: list[str]) -> list[str]:
    device = next(model.parameters()).device
    # Far more characters than the tokens need: the whole file before a late line would be tokenized for nothing.
    nearest = [prompt[-PROMPT_TOKENS * 16 :] for prompt in prompts]
    rows = [[*encoder.begin, *found[-PROMPT_TOKENS:]] for found in encoder.encode(nearest)]
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([[encoder.padding] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    made = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=encoder.padding,
        temperature=None,
        top_p=None,
        top_k=None,
    )
    return [encoder.decode(row[longest:]) for row in made]


def _first_line(answer: str) -> str:
    lines = [line for line in answer.splitlines() if line.strip()]
    return lines[0].strip() if lines else ""


def compare(base: EvaluationScores, tuned: EvaluationScores, held_out: HeldOut) -> Evaluation:
    """Both scores and what they mean."""
    improvement = (base.loss - tuned.loss) / base.loss if base.loss else 0.0
    text = f"Held-out loss {_say_change(base.loss, tuned.loss, improvement)} "
    text += f"on {held_out.files} files, {held_out.tokens} tokens"
    if base.exact_match is not None and tuned.exact_match is not None:
        count = len(held_out.questions)
        text += f"; next line exact: {base.exact_match * count:.0f}/{count} → {tuned.exact_match * count:.0f}/{count}"
    return Evaluation(
        base=base,
        tuned=tuned,
        improvement=round(improvement, 6),
        files=held_out.files,
        tokens=held_out.tokens,
        message=text + ".",
    )


def _say_change(base: float, tuned: float, improvement: float) -> str:
    if tuned == base:
        return f"stayed at {base:.3f}"
    verb, judged = ("fell", "better") if tuned < base else ("rose", "worse")
    return f"{verb} from {base:.3f} to {tuned:.3f} ({abs(improvement):.1%} {judged})"
