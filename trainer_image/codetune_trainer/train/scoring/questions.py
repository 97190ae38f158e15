"""What the models are asked about held-out files: the next line, and the middle of a text. Pure.

A fixed choice for a dataset and a run, so that base and tuned model answer the same questions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from codetune_api.contracts import DatasetFile

from codetune_trainer.train.data.cutting import choose_cut

A_FILE = 4
"""Most questions of a kind about one file: many files tell more than many places of one."""
FILES = 256
"""Files that are looked at."""
LEAST_LINE = 8
"""Characters of a line that is worth asking for."""
MIDDLE = (3, 120)
"""Fewest and most characters of a middle that is asked for: what an editor would insert at once."""
_ATTEMPTS = 8


@dataclass(frozen=True)
class Question:
    """One place in a held-out file."""

    file: str
    before: str
    """Text before the cursor."""
    after: str
    """Text after the answer; empty where it is not told."""
    answer: str


def ask_lines(files: Sequence[DatasetFile], most: int) -> list[Question]:
    """Next lines, in random order: at most so many, from as many files as there are."""
    return _mix([_lines_of(file) for file in files[:FILES]], most)


def ask_middles(files: Sequence[DatasetFile], most: int) -> list[Question]:
    """Middles of the kinds that training has, in random order: at most so many."""
    return _mix([_middles_of(file) for file in files[:FILES]], most)


def _lines_of(file: DatasetFile) -> list[Question]:
    lines = file.text.splitlines(keepends=True)
    places = [index for index in range(3, len(lines)) if len(lines[index].strip()) >= LEAST_LINE]
    chosen = random.Random(f"lines/{file.sha256}").sample(places, min(A_FILE, len(places)))
    return [Question(file.path, "".join(lines[:index]), "", lines[index].strip()) for index in chosen]


def _middles_of(file: DatasetFile) -> list[Question]:
    chance = random.Random(f"middles/{file.sha256}")
    found: list[Question] = []
    for _ in range(_ATTEMPTS):
        first, second = choose_cut(file.text, chance)
        middle = file.text[first:second]
        if MIDDLE[0] <= len(middle.strip()) and len(middle) <= MIDDLE[1] and len(found) < A_FILE:
            found.append(Question(file.path, file.text[:first], file.text[second:], middle))
    return found


def _mix(by_file: list[list[Question]], most: int) -> list[Question]:
    """The first question about each file, then the second …, each round in random order."""
    chance = random.Random("held-out")
    rounds = ([asked[number] for asked in by_file if len(asked) > number] for number in range(A_FILE))
    return [question for asked in rounds for question in chance.sample(asked, len(asked))][:most]
