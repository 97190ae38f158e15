"""The split stays where it is: what happens to other files moves none, and no content ever stands on both sides.

Skipped on purpose: lists so short that one file is held out only because something must be.
"""

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from codetune_api.project import Holdout
from codetune_trainer.scan.deciding import decide
from codetune_trainer.scan.records import Judged
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop

BASE = {f"s/f{number:03}.py": f"content {number}" for number in range(120)}
"""Enough files that both sides have some, whatever is done to some of them."""
FRACTIONS = st.sampled_from([0.1, 0.3, 0.5])
SOME = st.sets(st.sampled_from(sorted(BASE)), max_size=40)


def judge(path: str, content: str) -> Judged:
    """An accepted file."""
    return Judged(path, "s", "Python", 1, 1, "", "", digest=hashlib.sha256(content.encode()).digest())


def split(files: dict[str, str], fraction: float, *, allow: bool = False) -> dict[str, str]:
    """Path → decision."""
    judged = [judge(path, files[path]) for path in sorted(files)]
    decided = decide(judged, holdout=Holdout(fraction=fraction), allow_duplicates=allow)
    return {entry.file.path: entry.decision for entry in decided}


@given(gone=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_removing_files_moves_no_other_file(gone: set[str], fraction: float, allow: bool) -> None:
    before = split(BASE, fraction, allow=allow)
    after = split({path: text for path, text in BASE.items() if path not in gone}, fraction, allow=allow)
    assert after == {path: decision for path, decision in before.items() if path not in gone}


@given(moved=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_renaming_files_moves_no_other_file(moved: set[str], fraction: float, allow: bool) -> None:
    before = split(BASE, fraction, allow=allow)
    after = split({f"r/{path}" if path in moved else path: text for path, text in BASE.items()}, fraction, allow=allow)
    assert {path: after[path] for path in BASE if path not in moved} == {
        path: decision for path, decision in before.items() if path not in moved
    }


@given(edited=SOME, fraction=FRACTIONS, allow=st.booleans())
def test_editing_files_moves_no_other_file(edited: set[str], fraction: float, allow: bool) -> None:
    before = split(BASE, fraction, allow=allow)
    after = split({**BASE, **{path: f"new {path}" for path in edited}}, fraction, allow=allow)
    assert {path: after[path] for path in BASE if path not in edited} == {
        path: decision for path, decision in before.items() if path not in edited
    }


@given(copied=SOME, fraction=FRACTIONS, allow=st.booleans(), first=st.booleans())
def test_adding_copies_never_trains_on_what_stays_held_out(
    copied: set[str], fraction: float, allow: bool, first: bool
) -> None:
    copies = {("a/" if first else "z/") + path: BASE[path] for path in copied}
    after = split({**BASE, **copies}, fraction, allow=allow)
    sides: dict[str, set[str]] = {"train": set(), "holdout": set(), "rejected": set()}
    for path, decision in after.items():
        sides[decision].add({**BASE, **copies}[path])
    assert not sides["train"] & sides["holdout"]


@given(low=SOME, fraction=FRACTIONS)
def test_files_of_low_quality_go_and_move_no_other_file(low: set[str], fraction: float) -> None:
    judged = [judge(path, BASE[path]) for path in sorted(BASE)]
    seen = {judge(path, BASE[path]).digest: "loss 9.000 above 3" for path in low}
    decided = decide(judged, holdout=Holdout(fraction=fraction), allow_duplicates=False, low_quality=seen)
    before = split(BASE, fraction)
    assert {entry.file.path: entry.decision for entry in decided} == {
        path: "rejected" if path in low else decision for path, decision in before.items()
    }
    assert {entry.file.path for entry in decided if entry.file.reason == "LowQuality"} == low


@pytest.mark.parametrize("workers", [2, 5])
def test_any_number_of_processes_gives_the_same_bytes(workshop: "Workshop", workers: int) -> None:
    chance = random.Random("the same tree each time")
    names = ["a", "b", "a-b", "\u00e9", "x y", "\u202e", "new\nline", "Z"]
    files: dict[str, str | bytes] = {}
    for number in range(500):
        path = "/".join(chance.choices(names, k=chance.randint(1, 4)))
        ending = chance.choice([".py", ".go", ".js", ".md", ".min.js", ".bin", ""])
        text = chance.choice(
            ["", "\0", f"x = {number % 300}\n", f"key = '{number}'\n" * 40, "y" * 1200, f"# {number}\n"]
        )
        files[f"{path}/{number}{ending}"] = text
    workshop.volume("disk", files)
    rules = {"holdout": {"fraction": 0.2}, "files": {"include": ["**/Z/*.md"]}}
    alone = workshop.scan(workshop.from_volume("disk"), workers=1, **rules)
    told = [(alone.folder / name).read_bytes() for name in ("files.jsonl", "report.jsonl")]
    together = workshop.scan(workshop.from_volume("disk"), workers=workers, **rules)
    assert together.result.revision == alone.result.revision
    assert [(together.folder / name).read_bytes() for name in ("files.jsonl", "report.jsonl")] == told
    assert len(alone.report) == len(files)
