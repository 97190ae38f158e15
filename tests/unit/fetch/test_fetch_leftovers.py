"""Half-done downloads that nobody goes on with are removed: only old ones, and never one that goes on."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.config import Places
from codetune_trainer.leftovers import ABANDONED_SECONDS, locked, partial_folder, remove_abandoned
from standin_hub import COMMIT, Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

OTHER = "f" * 40
OLD, YOUNG = ABANDONED_SECONDS + 60, ABANDONED_SECONDS - 60


def leave(model: Path, commit: str = OTHER, age: float = OLD) -> Path:
    """A download that broke off so many seconds ago."""
    partial = partial_folder(model / commit)
    partial.mkdir(parents=True)
    (partial / ".model.safetensors.part").write_bytes(b"half")
    for path in (partial / ".model.safetensors.part", partial):
        os.utime(path, (time.time() - age, time.time() - age))
    return partial


@pytest.mark.parametrize(
    ("age", "newest", "is_removed"),
    [
        pytest.param(OLD, OLD, True, id="old"),
        pytest.param(YOUNG, YOUNG, False, id="somebody may still go on with it"),
        pytest.param(OLD, 5.0, False, id="begun long ago, written to just now"),
    ],
)
def test_a_download_is_abandoned_when_nobody_has_written_to_it(
    tmp_path: Path, age: float, newest: float, is_removed: bool
) -> None:
    partial = leave(tmp_path / "acme" / "coder", age=age)
    os.utime(partial / ".model.safetensors.part", (time.time() - newest, time.time() - newest))
    assert remove_abandoned(tmp_path, keep=tmp_path / "none") == ([partial] if is_removed else [])
    assert partial.exists() is not is_removed


def test_a_download_that_goes_on_is_left_alone_however_old(tmp_path: Path) -> None:
    partial = leave(tmp_path / "acme" / "coder")
    with locked(partial.parent):
        assert remove_abandoned(tmp_path, keep=tmp_path / "none") == []
    assert remove_abandoned(tmp_path, keep=tmp_path / "none") == [partial]


def test_a_link_and_a_whole_model_are_left_alone(tmp_path: Path) -> None:
    model, elsewhere = tmp_path / "models" / "acme" / "coder", tmp_path / "elsewhere"
    (model / COMMIT).mkdir(parents=True)
    elsewhere.mkdir()
    os.utime(elsewhere, (0, 0))
    partial_folder(model / OTHER).symlink_to(elsewhere)
    assert remove_abandoned(tmp_path / "models", keep=tmp_path / "none") == []
    assert elsewhere.is_dir()
    assert (model / COMMIT).is_dir()


def test_a_fetch_makes_room_of_others_and_goes_on_with_its_own(hub: Hub, run: "Fetcher", places: Places) -> None:
    models = places.store / "models"
    others = [leave(models / "acme" / "coder"), leave(models / "acme" / "other")]
    own = leave(models / "acme" / "coder", COMMIT)
    (own / ".model.safetensors.part").write_bytes(hub.files["model.safetensors"][:4])
    assert (run() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert not any(path.exists() for path in (*others, own))
    assert hub.ranges == ["bytes=4-"]
