"""Greedy answers of a model to questions about held-out files, and how near they come to what stands there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from codetune_api.infilling import Format
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.group import ALONE, Group
from codetune_trainer.train.model.modelling import Model
from codetune_trainer.train.scoring.questions import Question

PROMPT_TOKENS = 192
"""Tokens before the cursor, and for middles as many again after it."""
LINE_TOKENS = 24
MIDDLE_TOKENS = 48
_ROWS = 8
"""Questions that are answered at once."""
# Far more characters than the tokens need: a whole file would be tokenized for nothing.
_CHARACTERS = PROMPT_TOKENS * 16


@dataclass(frozen=True)
class Mark:
    """How an answer did."""

    file: str
    exact: bool
    """To the letter, white space at its ends aside."""
    similarity: float
    """1 - (edit distance / length of the longer one), in characters."""


def answer_lines(
    model: Model, encoder: Encoder, questions: Sequence[Question], between: Callable[[], None], group: Group = ALONE
) -> list[Mark]:
    """Complete next lines: the first line of the answer that holds anything counts."""
    prompts = [_nearest(encoder, question.before) for question in questions]
    answers = _generate(model, encoder, prompts, LINE_TOKENS, [encoder.end], between, by_line=True, group=group)
    return [
        _mark(question, _first_line(answer)) for question, answer in zip(questions, answers, strict=True)
    ]  # fmt: skip


def answer_middles(
    model: Model,
    encoder: Encoder,
    found: Format,
    questions: Sequence[Question],
    between: Callable[[], None],
    group: Group = ALONE,
) -> list[Mark]:
    """Fill middles in, asked as the family is served."""
    prompts = [_ask_middle(encoder, found, question) for question in questions]
    answers = _generate(model, encoder, prompts, MIDDLE_TOKENS, list(found.stops), between, by_line=False, group=group)
    return [_mark(question, answer) for question, answer in zip(questions, answers, strict=True)]


def _nearest(encoder: Encoder, text: str) -> list[int]:
    return [*encoder.begin, *encoder.encode_one(text[-_CHARACTERS:])[-PROMPT_TOKENS:]]


def _ask_middle(encoder: Encoder, found: Format, question: Question) -> list[int]:
    prefix = encoder.encode_one(question.before[-_CHARACTERS:])[-PROMPT_TOKENS:]
    suffix = encoder.encode_continuation(question.after[:_CHARACTERS])[:PROMPT_TOKENS]
    return [*encoder.begin, *found.arrange([], prefix, suffix)]


class _LineDone(StoppingCriteria):
    """A row is done once its answer holds a whole line with anything in it."""

    def __init__(self, encoder: Encoder, start: int) -> None:
        self._encoder = encoder
        self._start = start

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        texts = [self._encoder.decode(row[self._start :]) for row in input_ids]
        return torch.tensor(["\n" in text.lstrip() for text in texts], device=input_ids.device)


class _Together(LogitsProcessor):
    """All processes take the leader's token: a chance rounding must not let one of them be done before the others."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        best = self._group.spread(scores.argmax(dim=-1, keepdim=True))
        return torch.full_like(scores, -torch.inf).scatter_(1, best, 0.0)


@torch.no_grad()
def _generate(
    model: Model,
    encoder: Encoder,
    prompts: list[list[int]],
    most: int,
    ends: list[int],
    between: Callable[[], None],
    *,
    by_line: bool,
    group: Group = ALONE,
) -> list[str]:
    """Greedy continuations of at most so many tokens, several at once; what `between` raises ends it."""
    was_training = model.training
    model.eval()
    answers = []
    try:
        for start in range(0, len(prompts), _ROWS):
            between()
            rows = prompts[start : start + _ROWS]
            longest = max(len(row) for row in rows)
            device = next(model.parameters()).device
            tokens = torch.tensor([[encoder.padding] * (longest - len(row)) + row for row in rows], device=device)
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
            made = model.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=most,
                do_sample=False,
                use_cache=True,
                pad_token_id=encoder.padding,
                eos_token_id=ends,
                stopping_criteria=StoppingCriteriaList([_LineDone(encoder, longest)] if by_line else []),
                logits_processor=LogitsProcessorList([_Together(group)] if group.size > 1 else []),
                temperature=None,
                top_p=None,
                top_k=None,
            )
            answers += [encoder.decode(_until(row[longest:].tolist(), ends)) for row in made]
    finally:
        model.train(was_training)
    return answers


def _until(tokens: list[int], ends: list[int]) -> list[int]:
    """What comes before the first end: not all tokenizers call them special, so decoding may not leave them out."""
    return tokens[: next((index for index, token in enumerate(tokens) if token in ends), len(tokens))]


def _first_line(answer: str) -> str:
    lines = [line for line in answer.splitlines() if line.strip()]
    return lines[0] if lines else ""


def _mark(question: Question, answer: str) -> Mark:
    given, wanted = answer.strip(), question.answer.strip()
    return Mark(question.file, given == wanted, round(measure_similarity(given, wanted), 6))


def measure_similarity(one: str, other: str) -> float:
    """1 for equal texts, 0 for texts with nothing in common: 1 - (Levenshtein distance / length of the longer one)."""
    if not one or not other:
        return float(one == other)
    row = list(range(len(other) + 1))
    for index, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], index
        for place, wanted in enumerate(other, 1):
            cheapest = min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != wanted))
            diagonal, row[place] = row[place], cheapest
    return 1 - row[-1] / max(len(one), len(other))
