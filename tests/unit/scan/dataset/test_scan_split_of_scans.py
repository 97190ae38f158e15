"""The held-out split of whole scans: the same bytes in any number of processes, and copies however their lines end."""

import hashlib
import random
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.scan.digesting import digest_text
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop


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


def test_a_scan_puts_a_copy_on_the_side_of_its_original(workshop: "Workshop") -> None:
    files: dict[str, str | bytes] = {f"m/{number}.py": f"x = {number}\n" for number in range(60)}
    workshop.volume("disk", files)
    before = workshop.scan(workshop.from_volume("disk"), holdout={"fraction": 0.5}).verdicts()
    workshop.volume("disk", {f"a/{path}": text for path, text in files.items()})
    after = workshop.scan(workshop.from_volume("disk"), holdout={"fraction": 0.5}).verdicts()
    assert {path: after[f"a/{path}"] for path in before} == before
    assert {after[path] for path in before} == {"Duplicate"}
    assert set(before.values()) == {"train", "holdout"}


AREA = "def area{0}(width, height):\n    if width < 0:\n        raise ValueError(width)\n    return width * height\n"


@pytest.mark.parametrize("duplicates", ["Reject", "Allow"])
def test_short_code_is_on_one_side_however_its_lines_end(workshop: "Workshop", duplicates: str) -> None:
    texts = {number: AREA.format(number) for number in range(60)}
    files: dict[str, str | bytes] = {f"lf/{number}.py": text for number, text in texts.items()}
    files |= {f"crlf/{number}.py": text.replace("\n", "\r\n") for number, text in texts.items()}
    files |= {f"cr/{number}.py": text.replace("\n", "\r") for number, text in texts.items()}
    files |= {f"tail/{number}.py": f"{text}\n \n" for number, text in texts.items()}
    workshop.volume("disk", files)
    rules = {"holdout": {"fraction": 0.3}, "files": {"duplicates": duplicates}}
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, **rules)
    sides: dict[str, set[str]] = {}
    for path, row in scanned.files.items():
        sides.setdefault(path.rpartition("/")[2], set()).add(row["split"])
        assert row["sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()
    assert len(sides) == 60
    assert all(len(both) == 1 for both in sides.values())
    assert len(scanned.files) == (60 if duplicates == "Reject" else 240)


def test_a_copy_by_other_line_ends_is_rejected_and_says_so(workshop: "Workshop") -> None:
    text = AREA.format(1)
    files: dict[str, str | bytes] = {
        "a.py": text,
        "b.py": text.replace("\n", "\r\n"),
        "c.py": text,
        "d.py": text.strip(),
    }
    workshop.volume("disk", {**files, "e.py": text.replace("width, height", "width,  height"), "f.py": f" {text}"})
    report = workshop.scan(workshop.from_volume("disk"), workers=1).report
    assert {path: row["detail"] for path, row in report.items() if row["reason"] == "Duplicate"} == {
        "disk/b.py": "of disk/a.py, but for line ends",
        "disk/c.py": "of disk/a.py",
        "disk/d.py": "of disk/a.py, but for line ends",
    }


@given(st.text("a \t\r\n\N{NO-BREAK SPACE}", max_size=12))
def test_a_text_has_its_own_digest_and_that_of_its_plainest_spelling(text: str) -> None:
    exact, normal = digest_text(text.encode())
    assert exact == hashlib.sha256(text.encode()).digest()
    plain = text.replace("\r\n", "\n").replace("\r", "\n").rstrip(" \t\n")
    assert normal == hashlib.sha256(plain.encode()).digest()
