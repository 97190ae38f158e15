"""From sources to a dataset in the store: what is written, what is told, and that the same gives the same."""

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DatasetFile, DatasetManifest, ReportRow
from codetune_api.protocol import ResultEvent, StageEvent, parse
from codetune_trainer.errors import EmptyDataset
from codetune_trainer.manifests import is_intact
from codetune_trainer.train.data.documents import load_dataset

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

    Scan = Callable[..., Scanned]


def test_a_repository_becomes_a_dataset_that_says_what_came_from_where(workshop: "Workshop") -> None:
    commit = workshop.repository().commit(
        {"src/a.py": workshop.code("a"), "src/b.py": workshop.code("b"), "README.md": "# Read me\n", "logo.png": b"\0"}
    )
    scanned = workshop.scan()
    assert list(scanned.files) == ["repo/src/a.py", "repo/src/b.py"]
    assert scanned.files["repo/src/a.py"]["text"] == workshop.code("a")
    (source,) = scanned.result.sources
    assert (source.name, source.commit, source.files, source.message) == ("repo", commit, 4, "")
    counts = scanned.result.files
    assert (counts.total, counts.accepted, counts.rejected, counts.trained, counts.held_out) == (4, 2, 2, 2, 0)
    assert counts.bytes == 2 * len(workshop.code("a"))
    assert scanned.result.uri == f"team/projects/code/{scanned.result.revision.removeprefix('sha256:')}"


def test_every_line_is_what_the_contracts_say(workshop: "Workshop") -> None:
    workshop.repository().commit({"a.py": workshop.code("a"), "data.json": "{}"})
    scanned = workshop.scan()
    for line in (scanned.folder / "files.jsonl").read_text().splitlines():
        file = DatasetFile.model_validate_json(line)
        assert file.sha256 == hashlib.sha256(file.text.encode()).hexdigest()
    for line in (scanned.folder / "report.jsonl").read_text().splitlines():
        ReportRow.model_validate_json(line)
    manifest = DatasetManifest.model_validate_json((scanned.folder / "manifest.json").read_text())
    assert manifest.revision == scanned.result.revision
    assert is_intact(scanned.folder, manifest.artifacts)
    assert manifest.revision == "sha256:" + hashlib.sha256((scanned.folder / "files.jsonl").read_bytes()).hexdigest()


def test_the_trainer_reads_what_the_scan_wrote(workshop: "Workshop") -> None:
    workshop.repository().commit({f"f{number}.py": workshop.code(f"f{number}") for number in range(10)})
    scanned = workshop.scan(holdout={"fraction": 0.3})
    dataset = load_dataset(scanned.folder, scanned.result.revision)
    assert len(dataset.train) + len(dataset.holdout) == 10
    assert dataset.holdout


def test_its_stages_and_its_result_are_lines_of_the_protocol(
    workshop: "Workshop", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from codetune_trainer.scan import main

    workshop.repository().commit({"a.py": workshop.code("a"), "evil\nevent=result.py": workshop.code("b")})
    config = workshop.config()
    (workshop.root / "config.json").write_text(json.dumps(config.to_wire()))
    places = workshop.places
    monkeypatch.setenv("CODETUNE_CONFIG", str(workshop.root / "config.json"))
    monkeypatch.setenv("CODETUNE_STORE", str(places.store))
    monkeypatch.setenv("CODETUNE_SCRATCH", str(places.scratch))
    monkeypatch.setenv("CODETUNE_FILE_ROOT", str(places.file_root))
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    events = [parse(line, config.nonce) for line in lines]
    assert [event.stage for event in events if isinstance(event, StageEvent)] == ["Fetching", "Scanning", "Writing"]
    assert isinstance(events[-1], ResultEvent)
    assert events[-1].scan is not None
    assert events[-1].scan.files.accepted == 2
    assert len(events) == 4


def test_the_file_types_say_what_was_found_and_what_is_selected(scan_one: "Scan") -> None:
    scanned = scan_one(
        {"a.py": "a = 1\n", "b.pyi": "b: int\n", "c.json": "{}", "d.weird": "?\n", "e.go": "package e\n"}
    )
    rows = {row.type: row for row in scanned.result.file_types}
    assert (rows["Python"].files, rows["Python"].accepted, rows["Python"].extensions) == (2, 2, [".py", ".pyi"])
    assert (rows["JSON"].selected, rows["JSON"].accepted, rows["JSON"].rejected) == (False, 0, 1)
    assert (rows["Unknown"].selected, rows["Unknown"].extensions) == (False, [".weird"])
    assert rows["Go"].selected
    assert scanned.result.file_types[0].type == "Python"


UNMATCHED = [
    pytest.param([".pyx"], [".pyx", ".py"], id="an-extension"),
    pytest.param(["Cython"], ["cython", "python"], id="a-language"),
    pytest.param([".pyx", "Cython"], ["*.pyx", ".PYX", ".pyx", "CYTHON", ".py"], id="each-once"),
    pytest.param([], [".PY", "*.json", "GO", "Python"], id="none-in-whatever-case"),
    pytest.param([], [".d.ts", "Python"], id="several-dots-by-the-last-part"),
    pytest.param([], ["Makefile", "Markdown", "Python"], id="types-of-files-that-are-left-out"),
    pytest.param([], [], id="no-wish"),
]


@pytest.mark.parametrize(("expected", "types"), UNMATCHED)
def test_types_that_are_asked_for_and_no_file_is_of_have_a_row_without_files(
    scan_one: "Scan", expected: list[str], types: list[str]
) -> None:
    files = {"a.py": "a = 1\n", "e.go": "package e\n", "c.json": "{}", "x.ts": "1\n", "Makefile": "", "out/r.md": "# R"}
    rows = scan_one(files, files={"types": types, "exclude": ["out"]}).result.file_types
    assert [(row.type, row.extensions) for row in rows if not row.files] == [(name, []) for name in expected]
    assert all(row.files for row in rows[: len(rows) - len(expected)])


def test_a_type_whose_last_file_is_gone_is_told_by_the_next_scan_too(workshop: "Workshop") -> None:
    folder = workshop.volume("disk", {"a.py": "a = 1\n", "e.go": "package e\n"})
    rules: dict[str, Any] = {"files": {"types": ["Go", "Python"]}}
    first = workshop.scan(workshop.from_volume("disk"), **rules)
    (folder / "e.go").unlink()
    second = workshop.scan(workshop.from_volume("disk"), **rules)
    assert [row.type for scanned in (first, second) for row in scanned.result.file_types if not row.files] == ["Go"]


def test_rejections_are_counted_with_three_examples(scan_one: "Scan") -> None:
    scanned = scan_one({"a.py": "a = 1\n", "z.bin": b"\0", **{f"e{number}.py": "" for number in range(5)}})
    empty, binary = scanned.result.rejections
    assert (empty.reason, empty.files) == ("Empty", 5)
    assert empty.examples == ["disk/e0.py", "disk/e1.py", "disk/e2.py"]
    assert (binary.reason, binary.files) == ("Binary", 1)


def test_the_same_files_and_rules_give_the_same_revision_with_any_number_of_processes(workshop: "Workshop") -> None:
    files: dict[str | bytes, str | bytes] = {
        f"p{number % 7}/f{number}.py": workshop.code(f"f{number % 250}") for number in range(300)
    }
    workshop.repository().commit(files)
    workshop.volume("disk", {"y.py": "y = 1\n", "caf\u00e9.py": "x = 1\n"})
    sources = [workshop.from_git("repo"), workshop.from_volume("disk")]
    rules = {"holdout": {"fraction": 0.2}}
    scans = [workshop.scan(*order, workers=count, **rules) for order, count in ((sources, 1), (sources[::-1], 3))]
    assert len({scanned.result.revision for scanned in scans}) == 1
    assert scans[0].result.rejections == scans[1].result.rejections
    assert list(scans[0].files) == sorted(scans[0].files)
    assert len({(scanned.folder / "report.jsonl").read_bytes() for scanned in scans}) == 1


def test_other_rules_with_the_same_outcome_keep_the_revision_and_renew_the_report(scan_one: "Scan") -> None:
    files = {"a.py": "a = 1\n", "notes.txt": "hello\n"}
    first = scan_one(files)
    second = scan_one(files, files={"exclude": ["*.txt"]})
    assert first.result.revision == second.result.revision
    assert second.verdicts()["notes.txt"] == "Excluded"
    manifest = DatasetManifest.model_validate_json((second.folder / "manifest.json").read_text())
    assert is_intact(second.folder, manifest.artifacts)


def test_a_dataset_that_somebody_damaged_is_made_anew(scan_one: "Scan") -> None:
    first = scan_one({"a.py": "a = 1\n"})
    (first.folder / "files.jsonl").write_text("")
    second = scan_one({"a.py": "a = 1\n"})
    assert list(second.files) == ["disk/a.py"]


def test_an_earlier_revision_stays_for_those_that_pinned_it(scan_one: "Scan") -> None:
    first = scan_one({"a.py": "a = 1\n"})
    second = scan_one({"a.py": "a = 2\n"})
    assert first.folder != second.folder
    assert list(first.files) == ["disk/a.py"]


def test_nothing_but_datasets_and_the_cache_is_left_in_the_store(workshop: "Workshop") -> None:
    output = workshop.places.store / "team/projects/code"
    (output / ".scan-killed").mkdir(parents=True)
    workshop.repository().commit({"a.py": workshop.code("a")})
    scanned = workshop.scan()
    assert {path.name for path in output.iterdir()} == {"sources", "verdicts", scanned.folder.name}
    assert {path.name for path in scanned.folder.iterdir()} == {"files.jsonl", "report.jsonl", "manifest.json"}


@pytest.mark.parametrize(
    ("words", "files", "rules"),
    [
        pytest.param(["no file at all"], {}, {}, id="nothing-there"),
        pytest.param(
            ["None of the 3 files", "Empty 2 (such as disk/a.py)"],
            {"a.py": "", "b.py": " \n", "c.bin": b"\0"},
            {},
            id="all-rejected",
        ),
        pytest.param(
            [
                "None of the 4 files was accepted: NotSelected 3 (such as disk/a.py), Empty 1 (such as disk/b.json).",
                "No file is of these types in files.types: .pyx, Ruby. There are: JSON 2, Go 1, Python 1.",
            ],
            {"a.py": "a = 1\n", "b.json": "", "c.json": "{}", "e.go": "package e\n"},
            {"files": {"types": ["*.pyx", "ruby"]}},
            id="types-that-nothing-is-of",
        ),
        pytest.param(
            [
                "files.types: .a, .b, .c, .d, .e, 1 more. There are: Go 1, JSON 1, JavaScript 1, Python 1, Ruby 1, "
                "1 more."
            ],
            {f"x{ending}": "1\n" for ending in (".py", ".go", ".json", ".js", ".rb", ".ts")},
            {"files": {"types": [".a", ".b", ".c", ".d", ".e", ".f"]}},
            id="many-types",
        ),
        pytest.param(
            ["All 2 accepted files are held out"],
            {"a.py": "a = 1\n", "b.py": "b = 1\n"},
            {"holdout": {"fraction": 0, "paths": ["*"]}},
            id="all-held-out",
        ),
    ],
)
def test_a_project_without_a_file_to_train_on_says_why(
    workshop: "Workshop", scan_one: "Scan", words: list[str], files: dict[str, str], rules: dict[str, object]
) -> None:
    with pytest.raises(EmptyDataset) as failure:
        scan_one(files, **rules)
    assert all(word in failure.value.message for word in words)
    assert failure.value.hint
    assert not list(workshop.places.store.glob("team/projects/code/*/files.jsonl"))
    assert not list(workshop.places.store.glob("team/projects/code/.scan-*"))
