"""What a deleted resource left goes; nothing else does, whatever a path or a link in the store says."""

import json
import shutil
from pathlib import Path

import pytest
from codetune_api.artifacts import finetune_folder, project_folder
from codetune_trainer import purge
from codetune_trainer.errors import InvalidParameters


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two projects and a run, beside a folder that is none of ours."""
    root = tmp_path / "store"
    for path in ("team/projects/a/rev", "team/projects/b/rev", "team/finetunes/f/uid/checkpoints", "../outside/x/y"):
        (root / path).mkdir(parents=True)
        (root / path / "file").write_text("content")
    monkeypatch.setenv("CODETUNE_STORE", str(root))
    monkeypatch.setenv("CODETUNE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("CODETUNE_CONFIG", str(tmp_path / "config.json"))
    return root


def run(store: Path, *paths: str) -> int:
    config = {"nonce": "n" * 16, "namespace": "team", "name": "a", "paths": list(paths)}
    (store.parent / "config.json").write_text(json.dumps(config))
    return purge.main()


def test_a_project_goes_and_its_neighbour_stays(store: Path) -> None:
    assert run(store, project_folder("team", "a")) == 0
    assert not (store / "team/projects/a").exists()
    assert (store / "team/projects/b/rev/file").exists()


def test_the_last_run_of_a_name_takes_the_empty_folder_with_it(store: Path) -> None:
    run(store, finetune_folder("team", "f", "uid"))
    assert not (store / "team/finetunes/f").exists()


def test_another_run_of_the_name_stays(store: Path) -> None:
    (store / "team/finetunes/f/other").mkdir()
    run(store, finetune_folder("team", "f", "uid"))
    assert [path.name for path in (store / "team/finetunes/f").iterdir()] == ["other"]


def test_purging_twice_is_the_same_as_once(store: Path) -> None:
    assert [run(store, "team/projects/a"), run(store, "team/projects/a")] == [0, 0]


def test_a_namespace_that_has_nothing_is_fine(store: Path) -> None:
    assert run(store, "nobody/projects/x") == 0


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="empty"),
        pytest.param(".", id="the-store"),
        pytest.param("team", id="a-namespace"),
        pytest.param("team/projects", id="all-projects"),
        pytest.param("../outside/x/y", id="dots"),
        pytest.param("team/projects/../../../outside", id="dots-inside"),
        pytest.param("/etc/a/b/c", id="absolute"),
        pytest.param("link/x/y", id="through-a-link"),
        pytest.param("team/link/y/z", id="through-a-deeper-link"),
    ],
)
def test_a_path_that_is_no_resources_folder_is_refused_and_nothing_goes(store: Path, path: str) -> None:
    (store / "link").symlink_to(store.parent / "outside")
    (store / "team/link").symlink_to(store.parent / "outside/x")
    before = sorted(store.parent.rglob("*"))
    with pytest.raises(InvalidParameters):
        run(store, "team/projects/a", path)
    assert sorted(found for found in store.parent.rglob("*") if found.name != "config.json") == before


def test_a_link_goes_itself_and_not_what_it_points_to(store: Path) -> None:
    (store / "team/projects/c").symlink_to(store.parent / "outside")
    (store / "team/projects/a/link").symlink_to(store.parent / "outside")
    run(store, "team/projects/c", "team/projects/a")
    assert not (store / "team/projects/c").is_symlink()
    assert (store.parent / "outside/x/y/file").exists()


def test_a_store_that_is_reached_through_a_link_is_purged_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (store.parent / "mount").symlink_to(store)
    monkeypatch.setenv("CODETUNE_STORE", str(store.parent / "mount"))
    run(store, "team/projects/a")
    assert not (store / "team/projects/a").exists()
    assert (store / "team/projects/b").exists()


def test_a_folder_that_fills_again_while_it_goes_is_tried_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree, tries = shutil.rmtree, list[Path]()

    def refill(path: Path) -> None:
        rmtree(path)
        tries.append(path)
        if len(tries) < 3:
            (path / "late").mkdir(parents=True)
            raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr("shutil.rmtree", refill)
    monkeypatch.setattr("time.sleep", lambda _: None)
    run(store, "team/projects/a")
    assert len(tries) == 3
    assert not (store / "team/projects/a").exists()
