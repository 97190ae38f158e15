"""Whole scans: a file that contains held-out code is not trained on, says why, and does so in the next scan too."""

import json
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.errors import EmptyDataset

if TYPE_CHECKING:
    from pathlib import Path

    from unit.scan.conftest import Scanned, Workshop


def code(name: str, functions: int = 12) -> str:
    return "".join(f"def {name}_{place}({name}, b):\n    return {name} * {place} + b\n" for place in range(functions))


EXAM, EXAM_TOO, LONG = code("exam"), code("too"), code("long", 3000)
BUNDLE = f"{LONG}\n{EXAM}"
OTHERS: dict[str, str | bytes] = {f"pkg/m{number}.py": code(f"m{number}") for number in range(8)}
CONTAINS = ("rejected", "ContainsHeldOut")


def told(scanned: "Scanned", path: str) -> tuple[str, str, str]:
    row = scanned.report[path]
    return row["decision"], row["reason"], row["detail"]


def test_a_bundle_of_a_source_for_evaluation_is_not_trained_on(workshop: "Workshop") -> None:
    assert len(LONG) > 128 * 1024
    workshop.volume("disk", {**OTHERS, "dist/bundle.py": f"{BUNDLE}\n{EXAM_TOO}"})
    workshop.volume("exam", {"a.py": EXAM, "b.py": EXAM_TOO})
    exam = {**workshop.from_volume("exam"), "use": "HoldOut"}
    scanned = workshop.scan(workshop.from_volume("disk"), exam, workers=1)
    assert told(scanned, "disk/dist/bundle.py") == (*CONTAINS, "100% of exam/a.py and of 1 more, held out")
    assert {path for path, row in scanned.files.items() if row["split"] == "train"} == {
        f"disk/{path}" for path in OTHERS
    }
    assert [row.model_dump() for row in scanned.result.rejections] == [
        {"reason": "ContainsHeldOut", "files": 1, "examples": ["disk/dist/bundle.py"]}
    ]
    counts = scanned.result.files
    assert (counts.total, counts.rejected, counts.trained, counts.held_out) == (11, 1, 8, 2)


def test_neither_is_one_of_files_that_a_fraction_holds_out(workshop: "Workshop") -> None:
    modules = {f"m{number:02}.py": code(f"m{number}") for number in range(40)}
    bundles = {
        f"dist/{number}.py": f"{modules[f'm{number:02}.py']}\n{code(f'own{number}', 90)}" for number in range(40)
    }
    workshop.volume("disk", {**modules, **bundles})
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, holdout={"fraction": 0.3})
    sides = scanned.verdicts()
    assert {sides[path] for path in modules} == {"train", "holdout"}
    for number in range(40):
        bundle, module = sides[f"dist/{number}.py"], sides[f"m{number:02}.py"]
        assert bundle == "holdout" or (bundle == "ContainsHeldOut") == (module == "holdout")


@pytest.mark.parametrize(
    ("expected", "rules"),
    [
        pytest.param((*CONTAINS, "100% of disk/exam.py, held out"), {}, id="by-default"),
        pytest.param((*CONTAINS, "100% of disk/exam.py, held out"), {"include": ["*.py"]}, id="though-it-is-included"),
        pytest.param(
            (*CONTAINS, "100% of disk/exam.py, held out"),
            {"nearDuplicates": "Allow", "duplicates": "Allow"},
            id="where-copies-are-taken",
        ),
        pytest.param(("train", "", ""), {"nearDuplicates": "Ignore"}, id="unless-nothing-is-compared"),
    ],
)
def test_rules_for_files_change_little_about_it(
    expected: tuple[str, str, str], rules: dict[str, Any], workshop: "Workshop"
) -> None:
    workshop.volume("disk", {**OTHERS, "exam.py": EXAM, "bundle.py": BUNDLE, "twin.py": f"{BUNDLE}\n"})
    holdout = {"fraction": 0, "paths": ["exam.py"]}
    scanned = workshop.scan(workshop.from_volume("disk"), workers=1, files=rules, holdout=holdout)
    assert told(scanned, "disk/bundle.py") == expected
    assert scanned.report["disk/twin.py"]["decision"] == "rejected"
    assert scanned.files["disk/exam.py"]["split"] == "holdout"


def test_a_notebook_with_the_module_pasted_in_is_not_trained_on(workshop: "Workshop") -> None:
    cells = [{"cell_type": "code", "source": text.splitlines(keepends=True)} for text in (code("own"), EXAM)]
    workshop.volume("disk", {**OTHERS, "exam.py": EXAM, "note.ipynb": json.dumps({"cells": cells}, indent=1)})
    scanned = workshop.scan(
        workshop.from_volume("disk"),
        workers=1,
        files={"types": ["Python", "Jupyter Notebook"]},
        holdout={"fraction": 0, "paths": ["exam.py"]},
    )
    assert told(scanned, "disk/note.ipynb") == (*CONTAINS, "100% of disk/exam.py, held out")


def test_where_nothing_else_is_left_to_train_on_the_failure_says_so(workshop: "Workshop") -> None:
    workshop.volume("disk", {"exam.py": EXAM, "bundle.py": BUNDLE})
    with pytest.raises(EmptyDataset) as failure:
        workshop.scan(workshop.from_volume("disk"), workers=1, holdout={"paths": ["exam.py"]})
    assert "1 more contain held-out code, such as disk/bundle.py" in failure.value.message


def write(folder: "Path", files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_scan_finds_what_a_scan_from_nothing_finds(
    workshop: "Workshop", judged: list[str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_trainer.scan.sources.volumes._RACY_NANOSECONDS", -(10**12))
    folder = workshop.volume(
        "disk", {**OTHERS, "exam1.py": EXAM, "bundle.py": BUNDLE, "empty.py": "", "tiny.py": "x\n"}
    )
    options: dict[str, Any] = {"holdout": {"fraction": 0, "paths": ["exam*.py"]}, "workers": workers}

    def look() -> tuple[bytes, bytes]:
        scanned = workshop.scan(workshop.from_volume("disk"), **options)
        return (scanned.folder / "report.jsonl").read_bytes(), (scanned.folder / "files.jsonl").read_bytes()

    first = look()
    judged.clear()
    assert look() == first
    assert not judged
    write(folder, {"exam2.py": str(OTHERS["pkg/m1.py"]), "aaa.py": f"{OTHERS['pkg/m1.py']}\n{code('aaa', 40)}"})
    (folder / "exam1.py").unlink()
    again = look()
    if workers == 1:  # other processes note nothing here
        assert set(judged) == {"exam2.py", "aaa.py"}
    rows = {row["path"]: row for row in map(json.loads, again[0].splitlines())}
    assert (rows["disk/bundle.py"]["decision"], rows["disk/aaa.py"]["reason"]) == ("train", "ContainsHeldOut")
    assert again != first
    workshop.root.joinpath("store").rename(workshop.root / "old")
    (workshop.root / "store").mkdir()
    assert look() == again
