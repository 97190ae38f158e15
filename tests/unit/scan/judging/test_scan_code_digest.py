"""Which code a scan's memory stands on: all of the scan's, in whatever folder, wherever it is installed."""

import shutil
from pathlib import Path

import pytest
from codetune_api.project import FileRules, Holdout
from codetune_trainer import scan
from codetune_trainer.scan.judging import remembering
from codetune_trainer.scan.judging.worker import Task

SCAN = Path(scan.__file__).parent
FOLDERS = sorted(path.name for path in SCAN.iterdir() if (path / "__init__.py").is_file())


def digest(code: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What verdicts follow from, were the scan's code in this folder."""
    monkeypatch.setattr(remembering, "CODE", code)
    return remembering.digest_rules(Task([], [], FileRules(), Holdout(), Path("work")))


def test_code_at_another_place_is_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembering.CODE == SCAN
    shutil.copytree(SCAN, tmp_path / "elsewhere")

    assert digest(tmp_path / "elsewhere", monkeypatch) == digest(SCAN, monkeypatch)


@pytest.mark.parametrize("folder", [pytest.param("", id="above-the-folders"), *FOLDERS])
def test_a_change_in_any_folder_is_other_code(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SCAN, tmp_path / "scan")
    module = max((tmp_path / "scan" / folder).glob("*.py"))
    module.write_text(f"{module.read_text()}\nMORE = 1\n")

    assert digest(tmp_path / "scan", monkeypatch) != digest(SCAN, monkeypatch)


def test_there_are_folders() -> None:
    assert {"git", "archive", "rules", "dataset"} <= set(FOLDERS)
