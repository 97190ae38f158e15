"""Every held-out file says in the report why it is: what about itself asks for it, or which other file decided."""

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.scan.digesting import digest_text

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

KEY = "key = 'AKIAQWERTYUIOPASDFGH'\n"


def chance(text: str) -> float:
    """Where a text stands between 0 and 1; below the fraction it is held out."""
    return int.from_bytes(hashlib.sha256(b"\0" + digest_text(text.encode()).normal).digest()[:8]) / 2**64


def code(number: int) -> str:
    return "".join(f"def f{number}_{place}(a, b):\n    return a * {place} + b\n" for place in range(30))


def altered(text: str) -> str:
    return text.replace("_9(", "_other(")


def find(*, low: bool, altered_low: bool | None = None) -> str:
    """A text below a half or above; where the second is told, one that is altered to what decides, and is so."""
    for number in range(1000):
        text, near = code(number), altered(code(number))
        decides = digest_text(near.encode()).normal < digest_text(text.encode()).normal
        fits = altered_low is None or (decides and (chance(near) < 0.5) == altered_low)
        if fits and (chance(text) < 0.5) == low:
            return text
    raise AssertionError("there is one")


HIGH, LOW = find(low=False), find(low=True)
TURNED_OUT = find(low=False, altered_low=True)
TURNED_IN = find(low=True, altered_low=False)
OTHERS = {f"z/{number}.py": code(2000 + number) for number in range(20)}


def told(scanned: "Scanned", path: str) -> tuple[str, str, str]:
    row = scanned.report[f"disk/{path}"]
    return row["decision"], row["reason"], row["detail"]


ALLOW = {"duplicates": "Allow", "nearDuplicates": "Allow"}


@pytest.mark.parametrize(
    ("expected", "files", "holdout", "rules"),
    [
        pytest.param(
            ("holdout", "HeldOut", "holdout.paths has 'tests/**'"),
            {"tests/a.py": LOW},
            {"fraction": 0.5, "paths": ["tests/**"]},
            {},
            id="named",
        ),
        pytest.param(
            ("holdout", "HeldOut", "chosen by its content"), {"a.py": LOW}, {"fraction": 0.5}, {}, id="chosen"
        ),
        pytest.param(("train", "", ""), {"a.py": HIGH}, {"fraction": 0.5}, {}, id="not-chosen"),
        pytest.param(
            ("holdout", "HeldOut", "a copy of disk/tests/b.py, which is to be held out"),
            {"a.py": HIGH, "tests/b.py": HIGH},
            {"fraction": 0.5, "paths": ["tests"]},
            {},
            id="for-a-copy-that-was-rejected",
        ),
        pytest.param(
            ("holdout", "HeldOut", "a copy of disk/tests/b.py, which is to be held out"),
            {"a.py": HIGH, "tests/b.py": HIGH + "\n", "tests/c.py": HIGH},
            {"fraction": 0.5, "paths": ["tests"]},
            ALLOW,
            id="for-a-copy-that-was-kept",
        ),
        pytest.param(
            ("holdout", "HeldOut", "a copy of disk/0.py, which is to be held out"),
            {"a.py": HIGH, "0.py": HIGH},
            {"fraction": 0.5, "paths": ["0.py"]},
            ALLOW,
            id="for-the-first-copy",
        ),
        pytest.param(
            ("holdout", "HeldOut", "like disk/tests/b.py, which is to be held out"),
            {"a.py": HIGH, "tests/b.py": altered(HIGH)},
            {"fraction": 0, "paths": ["tests"]},
            ALLOW,
            id="for-a-near-copy-that-is-named",
        ),
        pytest.param(
            ("holdout", "HeldOut", "like disk/b.py, which is to be held out"),
            {"a.py": TURNED_OUT, "b.py": altered(TURNED_OUT)},
            {"fraction": 0.5},
            ALLOW,
            id="for-a-near-copy-that-was-chosen",
        ),
        pytest.param(
            ("holdout", "HeldOut", "like disk/b.py, which is to be held out; redacted: aws-access-key in line 61"),
            {"a.py": TURNED_OUT + KEY, "b.py": altered(TURNED_OUT), "tests/c.py": altered(TURNED_OUT)},
            {"fraction": 0.5, "paths": ["b.py"]},
            {**ALLOW, "secrets": "Redact"},
            id="and-redacted",
        ),
        pytest.param(
            ("train", "", ""),
            {"a.py": TURNED_IN, "b.py": altered(TURNED_IN)},
            {"fraction": 0.5},
            ALLOW,
            id="trained-on-for-a-near-copy",
        ),
        pytest.param(
            ("holdout", "Included", "files.include has 'data/*', against NotSelected: JSON is not programming"),
            {"data/a.json": "{}"},
            {"fraction": 0.5, "paths": ["data"]},
            {"include": ["data/*"]},
            id="included",
        ),
        pytest.param(
            ("holdout", "HeldOut", "holdout.paths has 'a.py'"),
            {"a.py": HIGH},
            {"fraction": 0.5, "paths": ["a.py"]},
            {"include": ["a.py"]},
            id="included-without-need",
        ),
        pytest.param(
            ("rejected", "Duplicate", "of disk/0.py"),
            {"a.py": HIGH, "0.py": HIGH},
            {"fraction": 0.5, "paths": ["a.py"]},
            {},
            id="rejected",
        ),
    ],
)
def test_a_held_out_file_says_why(
    expected: tuple[str, str, str],
    files: dict[str, str],
    holdout: dict[str, Any],
    rules: dict[str, Any],
    workshop: "Workshop",
) -> None:
    workshop.volume("disk", {**OTHERS, **files})
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, holdout=holdout, files=rules)
    asked = next(path for path in files if path not in {"0.py", "b.py"})
    assert told(scanned, asked) == expected
    assert sum(row.files for row in scanned.result.rejections) == scanned.result.files.rejected
    assert "HeldOut" not in {row.reason for row in scanned.result.rejections}
    check(scanned)


def check(scanned: "Scanned") -> None:
    """What holds of every report."""
    for row in scanned.report.values():
        assert (row["reason"] == "HeldOut") == (row["decision"] == "holdout" and row["reason"] != "Included")
        assert bool(row["detail"]) >= (row["decision"] == "holdout")
        assert row["decision"] == "holdout" or "chosen by" not in row["detail"]


def test_a_source_for_evaluation_is_named(workshop: "Workshop") -> None:
    workshop.volume("disk", {"a.py": HIGH, "b.py": LOW})
    workshop.volume("exam", {"a.py": HIGH, "c.py": code(1)})
    exam = {**workshop.from_volume("exam"), "use": "HoldOut"}
    scanned = workshop.scan(workshop.from_volume("disk"), exam, workers=1)
    assert told(scanned, "a.py") == ("holdout", "HeldOut", "a copy of exam/a.py, which is to be held out")
    assert scanned.report["exam/c.py"]["detail"] == "source exam is for evaluation only"
    check(scanned)


def test_the_one_that_is_held_out_because_something_must_be_says_so(workshop: "Workshop") -> None:
    files = {"a.py": HIGH, "b.py": TURNED_OUT}
    workshop.volume("disk", files)
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, holdout={"fraction": 0.01})
    first = min(files, key=lambda path: chance(files[path]))
    assert told(scanned, first) == ("holdout", "HeldOut", "chosen by its content, so that something is held out")
    check(scanned)


def test_what_is_redacted_and_chosen_says_both_and_only_the_one_where_it_is_turned(workshop: "Workshop") -> None:
    redacted = next(
        text
        for text in (code(number) + KEY for number in range(1000))
        if chance(text.replace("AKIAQWERTYUIOPASDFGH", "REDACTED")) < 0.5
    )
    workshop.volume("disk", {**OTHERS, "a.py": redacted})
    rules: dict[str, Any] = {"holdout": {"fraction": 0.5}, "files": {"secrets": "Redact"}}
    detail = told(workshop.scan(workshop.from_volume("disk"), workers=1, **rules), "a.py")[2]
    assert detail.startswith("chosen by its content; redacted: ")
    # All but this one go, so it is trained on.
    rules["files"]["types"] = ["Python"]
    rules["files"]["exclude"] = ["z/"]
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, **rules)
    assert told(scanned, "a.py") == ("train", "", detail.removeprefix("chosen by its content; "))
