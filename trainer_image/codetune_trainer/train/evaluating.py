"""Is the tuned model better than its base on held-out code? Loss on packed files, and next lines to the letter."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from codetune_api.contracts import DatasetFile
from codetune_api.finetune import Evaluation, EvaluationScores

from codetune_trainer.train.losses import sum_loss
from codetune_trainer.train.modelling import Model
from codetune_trainer.train.packing import Packed, pack

MOST_TOKENS = {"cpu": 4096, "cuda": 131_072}
"""Held-out tokens that a loss is measured on; a fixed choice of sequences, so that all checkpoints are comparable."""
LINES = {"cpu": 8, "cuda": 64}
"""Held-out lines that are completed."""
PROMPT_TOKENS = 192
ANSWER_TOKENS = 24


@dataclass(frozen=True)
class HeldOut:
    """What evaluation uses."""

    packed: Packed
    files: int
    questions: list[tuple[str, str]]
    """(text before a line, the line)."""

    @property
    def tokens(self) -> int:
        """Tokens that carry loss."""
        return self.packed.targets


def prepare(
    files: Sequence[DatasetFile], tokenizer: Any, length: int, padding: int, device: Literal["cpu", "cuda"]
) -> HeldOut | None:
    """A fixed sample of the held-out files, smaller on a CPU; None when there are none."""
    if not files:
        return None
    ordered = sorted(files, key=lambda file: file.sha256)
    documents = [
        [*tokenizer(file.text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for file in ordered
    ]
    packed = pack(documents, length, padding)
    chance = random.Random("held-out")
    chosen = sorted(chance.sample(range(len(packed)), min(max(1, MOST_TOKENS[device] // length), len(packed))))
    packed = Packed(packed.tokens[chosen], packed.labels[chosen], packed.positions[chosen], packed.segments[chosen])
    return HeldOut(packed, len(files), _questions(ordered, chance, LINES[device]))


def _questions(files: Sequence[DatasetFile], chance: random.Random, most: int) -> list[tuple[str, str]]:
    found = []
    for file in files:
        lines = file.text.splitlines(keepends=True)
        places = [index for index in range(3, len(lines)) if len(lines[index].strip()) >= 8]
        found += [("".join(lines[:index]), lines[index]) for index in chance.sample(places, min(4, len(places)))]
    return chance.sample(found, min(most, len(found)))


@torch.no_grad()
def mean_loss(model: Model, held_out: HeldOut, rows: int) -> float:
    """Mean cross-entropy over the held-out targets, in nats per token; `rows` sequences at once."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total = 0.0
    for start in range(0, len(held_out.packed), rows):
        total += sum_loss(model, held_out.packed.rows(start, start + rows).to(device)).item()
    model.train(was_training)
    return total / max(held_out.tokens, 1)


@torch.no_grad()
def exact_match(model: Model, tokenizer: Any, held_out: HeldOut) -> float | None:
    """Share of the questions whose line greedy decoding gives to the letter, white space at its ends aside."""
    if not held_out.questions:
        return None
    was_training = model.training
    model.eval()
    hits = 0
    for start in range(0, len(held_out.questions), 8):
        part = held_out.questions[start : start + 8]
        answers = _continue(model, tokenizer, [prompt for prompt, _ in part])
        hits += sum(_first_line(answer) == line.strip() for answer, (_, line) in zip(answers, part, strict=True))
    model.train(was_training)
    return hits / len(held_out.questions)


def _continue(model: Model, tokenizer: Any, prompts: list[str]) -> list[str]:
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    device = next(model.parameters()).device
    rows = [tokenizer(prompt, add_special_tokens=False)["input_ids"][-PROMPT_TOKENS:] for prompt in prompts]
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    made = model.generate(
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        pad_token_id=padding,
        temperature=None,
        top_p=None,
        top_k=None,
    )
    return [tokenizer.decode(row[longest:], skip_special_tokens=True) for row in made]


def _first_line(answer: str) -> str:
    lines = [line for line in answer.splitlines() if line.strip()]
    return lines[0].strip() if lines else ""


def compare(base: EvaluationScores, tuned: EvaluationScores, held_out: HeldOut) -> Evaluation:
    """Both scores and what they mean."""
    improvement = (base.loss - tuned.loss) / base.loss if base.loss else 0.0
    verb = "fell" if tuned.loss < base.loss else "rose"
    judged = f"{abs(improvement):.1%} {'better' if improvement > 0 else 'worse'}"
    text = f"Held-out loss {verb} from {base.loss:.3f} to {tuned.loss:.3f} ({judged}) "
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
