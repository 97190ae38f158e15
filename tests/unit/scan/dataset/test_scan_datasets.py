"""The life of datasets in the store: which a scan removes, which stay, and what a run checks before it reads one."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_bucket.mirroring import Mirror
from codetune_trainer.errors import AuthenticationFailed, DatasetMissing, EmptyDataset, RevisionNotFound, SourceError
from codetune_trainer.purge import prune_datasets
from codetune_trainer.train.data.documents import load_dataset

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

Scan = Callable[..., "Scanned"]
REVISIONS = [f"sha256:{letter * 64}" for letter in "abc"]


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """A Project's folder with three datasets and what else lies there."""
    for revision in REVISIONS:
        (tmp_path / "mine" / revision.removeprefix("sha256:")).mkdir(parents=True)
        (tmp_path / "mine" / revision.removeprefix("sha256:") / "files.jsonl").write_text("{}")
    for other in ("sources", ".scan-1234", "uploads", "A" * 64, "a" * 63):
        (tmp_path / "mine" / other).mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "mine" / ("d" * 64)).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine" / ("e" * 64)).write_text("a file")
    return tmp_path / "mine"


KEPT = [
    pytest.param([], REVISIONS, id="all are used"),
    pytest.param(["a", "c"], REVISIONS[1:2], id="one is used"),
    pytest.param(["a", "b", "c"], [], id="none is"),
    pytest.param(["a", "b", "c"], ["sha256:" + "f" * 64], id="one that is not there"),
]


@pytest.mark.parametrize(("gone", "keep"), KEPT)
def test_datasets_that_nobody_uses_go_and_nothing_else_does(gone: list[str], keep: list[str], datasets: Path) -> None:
    before = {path.name for path in datasets.iterdir()}

    removed = prune_datasets(Mirror(datasets.parent), datasets.name, keep)

    assert removed == [f"sha256:{letter * 64}" for letter in gone]
    assert before - {path.name for path in datasets.iterdir()} == {letter * 64 for letter in gone}
    assert (datasets.parent / "elsewhere").is_dir()


def test_a_scan_removes_the_datasets_that_it_was_not_told_to_keep(scan_one: Scan) -> None:
    first, second = scan_one({"a.py": "a = 1\n"}), scan_one({"a.py": "a = 2\n"})

    third = scan_one({"a.py": "a = 3\n"}, keep=[second.result.revision])

    assert not first.folder.exists()
    assert list(second.files) == list(third.files) == ["disk/a.py"]


def test_a_scan_that_finds_the_same_again_keeps_it(scan_one: Scan) -> None:
    first = scan_one({"a.py": "a = 1\n"})
    again = scan_one({"a.py": "a = 1\n"}, keep=[])

    assert again.folder == first.folder
    assert list(again.files) == ["disk/a.py"]


def test_a_scan_that_fails_removes_nothing(scan_one: Scan) -> None:
    first = scan_one({"a.py": "a = 1\n"})

    with pytest.raises(EmptyDataset):
        scan_one({"a.py": "a = 1\n"}, keep=[], files={"types": ["Go"]})

    assert list(first.files) == ["disk/a.py"]


def test_a_dataset_that_can_t_be_removed_does_not_fail_the_scan(
    scan_one: Scan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan_one({"a.py": "a = 1\n"})

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("codetune_trainer.purge.remove", refuse)
    scanned = scan_one({"a.py": "a = 2\n"}, keep=[])

    assert list(scanned.files) == ["disk/a.py"]
    assert "can't be removed now" in capsys.readouterr().err


def test_a_run_reads_its_dataset_while_a_rescan_writes_the_report_anew(scan_one: Scan) -> None:
    scanned = scan_one({"a.py": "a = 1\n", "b.py": "b = 2\n"})
    (scanned.folder / "report.jsonl").write_text("half a repo")

    dataset = load_dataset(scanned.folder, scanned.result.revision)

    assert len(dataset.train) == 2


def test_a_run_refuses_files_that_are_not_those_of_its_revision(scan_one: Scan) -> None:
    scanned = scan_one({"a.py": "a = 1\n"})
    (scanned.folder / "files.jsonl").write_text("{}")

    with pytest.raises(DatasetMissing):
        load_dataset(scanned.folder, scanned.result.revision)


def held_out(scanned: "Scanned") -> set[str]:
    return {path for path, row in scanned.files.items() if row["split"] == "holdout"}


def make_tests(workshop: "Workshop") -> dict[str, Any]:
    workshop.volume("app", {"a.py": workshop.code("a"), "b.py": workshop.code("b"), "both.py": workshop.code("both")})
    workshop.volume("exam", {"x.py": workshop.code("x"), "both.py": workshop.code("both")})
    return {**workshop.from_volume("exam"), "use": "HoldOut"}


def test_a_source_for_evaluation_is_never_trained_on_and_neither_are_its_copies(workshop: "Workshop") -> None:
    exam = make_tests(workshop)

    scanned = workshop.scan(workshop.from_volume("app"), exam)

    assert held_out(scanned) == {"app/both.py", "exam/x.py"}
    assert scanned.report["exam/both.py"]["reason"] == "Duplicate"
    assert scanned.result.files.trained == 2


def test_with_duplicates_allowed_all_copies_are_held_out(workshop: "Workshop") -> None:
    exam = make_tests(workshop)

    scanned = workshop.scan(workshop.from_volume("app"), exam, files={"duplicates": "Allow"})

    assert held_out(scanned) == {"app/both.py", "exam/both.py", "exam/x.py"}


def test_the_number_of_processes_does_not_change_the_split(workshop: "Workshop") -> None:
    exam = make_tests(workshop)

    scans = [workshop.scan(workshop.from_volume("app"), exam, workers=workers) for workers in (1, 2)]

    assert len({scanned.result.revision for scanned in scans}) == 1


def test_a_project_with_nothing_but_evaluation_says_so(workshop: "Workshop") -> None:
    exam = make_tests(workshop)

    with pytest.raises(EmptyDataset, match="use: HoldOut") as caught:
        workshop.scan(exam)

    assert "use: Train" in caught.value.hint


BROKEN = [
    pytest.param(RevisionNotFound, ["repo"], id="the only source to train on"),
    pytest.param(RevisionNotFound, ["repo", "gone"], id="the first of two"),
]


@pytest.mark.parametrize(("kind", "names"), BROKEN)
def test_when_nothing_to_train_on_can_be_read_it_is_those_sources_that_are_told(
    kind: type[SourceError], names: list[str], workshop: "Workshop"
) -> None:
    exam = make_tests(workshop)
    workshop.repository("repo").commit({"a.py": "a = 1\n"})

    with pytest.raises(kind) as caught:
        workshop.scan(exam, *(workshop.from_git(name, revision="nowhere") for name in names))

    assert all(repr(name) in caught.value.message for name in names[1:])
    assert not isinstance(caught.value, AuthenticationFailed)


def test_a_source_that_is_away_says_why_its_last_commit_is_used(workshop: "Workshop") -> None:
    repository = workshop.repository("repo")
    repository.commit({"a.py": "a = 1\n"})
    first = workshop.scan()
    (workshop.root / "files" / "repo" / ".git").rename(workshop.root / "files" / "repo" / "away")

    second = workshop.scan()

    assert [source.reason for source in first.result.sources] == [""]
    assert second.result.revision == first.result.revision
    assert [source.reason for source in second.result.sources] == ["SourceUnavailable"]
    assert "the last scan is used" in second.result.sources[0].message
