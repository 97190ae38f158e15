"""Removing what a deleted resource left in a bucket: all of it, and nothing of others."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from codetune_bucket.bucket import Bucket
from codetune_bucket.mirroring import Mirror
from codetune_trainer import purge
from codetune_trainer.config import Places
from codetune_trainer.errors import InvalidParameters

LEFT = (
    "team/finetunes/mine/1/checkpoints/step-000002/MANIFEST.json",
    "team/finetunes/mine/1/train.log",
    "team/finetunes/mine/10/train.log",
    "team/projects/mine/sources/x",
    "other/finetunes/mine/1/train.log",
)


@pytest.fixture
def run(bucket_uri: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Purges one path; returns what is left in the bucket."""
    (tmp_path / "file").write_text("x")
    for path in LEFT:
        bucket.put(tmp_path / "file", path)
    environment = {
        "CODETUNE_STORE": str(tmp_path / "store"),
        "CODETUNE_SCRATCH": str(tmp_path),
        "CODETUNE_CONFIG": str(tmp_path / "config.json"),
        "CODETUNE_BUCKET": bucket_uri,
        "CODETUNE_NAMESPACE": "team",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "store").mkdir()

    def purge_path(path: str) -> list[str]:
        config = {"nonce": "n" * 16, "namespace": "team", "name": "mine", "paths": [path]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert purge.main() == 0
        return sorted(found.path for found in bucket.list())

    return purge_path


@pytest.mark.parametrize(
    ("gone", "path"),
    [
        pytest.param(LEFT[:2], "team/finetunes/mine/1", id="a run, and not its namesakes"),
        pytest.param(LEFT[3:4], "team/projects/mine", id="a project"),
        pytest.param((), "team/projects/another", id="nothing there"),
    ],
)
def test_everything_of_a_resource_goes_and_nothing_else(
    gone: tuple[str, ...], path: str, run: Callable[[str], list[str]]
) -> None:
    assert run(path) == sorted(set(LEFT) - set(gone))
    assert run(path) == sorted(set(LEFT) - set(gone)), "twice is the same as once"


def test_more_than_one_resource_is_never_removed(run: Callable[[str], list[str]], bucket: Bucket) -> None:
    with pytest.raises(InvalidParameters):
        run("team/finetunes")
    assert len(list(bucket.list())) == len(LEFT)


def test_datasets_that_nobody_uses_go_from_the_bucket(
    pod: Callable[[], Mirror], bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    names = ["a" * 64, "b" * 64, "sources"]
    for name in names:
        bucket.put(tmp_path / "file", f"team/projects/mine/{name}/file")
    removed = purge.prune_datasets(pod(), "team/projects/mine", {f"sha256:{'b' * 64}"})

    assert removed == [f"sha256:{'a' * 64}"]
    assert bucket.folders("team/projects/mine") == {"b" * 64, "sources"}


def test_places_know_their_bucket_from_the_environment(tmp_path: Path) -> None:
    assert not Places(store=tmp_path, scratch=tmp_path).mirror.is_remote
