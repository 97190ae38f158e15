"""A pod's folder and the bucket behind it: whole folders come and go, half-written ones are never seen."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from codetune_bucket.bucket import Bucket
from codetune_bucket.errors import BucketUnavailable, ObjectDamaged
from codetune_bucket.mirroring import Mirror

Pods = Callable[[], Mirror]

RUN = "team/finetunes/backend/1"
STEP = f"{RUN}/checkpoints/step-000010"
FILES = {"adapter_config.json": "{}", "adapter_model.safetensors": "weights", "state/state.json": "{1}"}
MANIFEST = "MANIFEST.json"


def write(mirror: Mirror, folder: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = mirror.root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def read(mirror: Mirror, folder: str) -> dict[str, str]:
    root = mirror.root / folder
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_folder_comes_to_another_pod_as_it_was(pod: Pods) -> None:
    first, second = pod(), pod()
    write(first, STEP, {**FILES, MANIFEST: "{}", ".part": "in the making", ".gone/x": "left"})
    first.push(STEP, MANIFEST)

    assert second.pull(STEP, MANIFEST)
    assert read(second, STEP) == {**FILES, MANIFEST: "{}"}
    assert second.folders(f"{RUN}/checkpoints") == {"step-000010"}


def test_a_folder_without_its_manifest_is_not_there(pod: Pods) -> None:
    first, second = pod(), pod()
    write(first, STEP, FILES)
    first.push(STEP)

    assert not second.pull(STEP, MANIFEST)
    assert read(second, STEP) == {}


def test_the_manifest_is_put_last(pod: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pod(), pod()
    write(first, STEP, {**FILES, MANIFEST: "{}"})
    put = Bucket.put

    def fail(self: Bucket, source: Path, path: str) -> object:
        if path.endswith("safetensors"):
            raise BucketUnavailable("The network is gone.", "")
        return put(self, source, path)

    monkeypatch.setattr(Bucket, "put", fail)
    with pytest.raises(BucketUnavailable):
        first.push(STEP, MANIFEST)
    assert not second.pull(STEP, MANIFEST)

    monkeypatch.setattr(Bucket, "put", put)
    first.push(STEP, MANIFEST)
    assert second.pull(STEP, MANIFEST)


def test_a_folder_that_is_replaced_is_never_a_mixture(pod: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pod(), pod()
    write(first, STEP, {**FILES, MANIFEST: "{}"})
    first.push(STEP, MANIFEST)
    write(first, STEP, {"adapter_model.safetensors": "others", MANIFEST: "{2}"})
    monkeypatch.setattr(Bucket, "put", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        first.push(STEP, MANIFEST)

    assert not second.pull(STEP, MANIFEST)


PUSH = """
import sys, pathlib
from codetune_bucket.mirroring import Mirror
Mirror.from_environment(pathlib.Path(sys.argv[1])).push(sys.argv[2], "MANIFEST.json")
"""


def test_a_pod_that_is_killed_while_it_puts_leaves_nothing_to_be_seen(pod: Pods, bucket_uri: str) -> None:
    first, second = pod(), pod()
    write(first, STEP, {**{f"{number}.bin": f"{number}" * 1000 for number in range(200)}, MANIFEST: "{}"})
    told = {**os.environ, "CODETUNE_BUCKET": bucket_uri, "CODETUNE_NAMESPACE": "team"}
    process = subprocess.Popen([sys.executable, "-c", PUSH, str(first.root), STEP], env=told)
    assert second.bucket is not None
    until = time.monotonic() + 60
    while not list(second.bucket.list(STEP)) and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()

    assert 0 < len(list(second.bucket.list(STEP))) < 201
    assert not second.pull(STEP, MANIFEST)
    first.push(STEP, MANIFEST)
    assert second.pull(STEP, MANIFEST)
    assert len(read(second, STEP)) == 201


def test_a_damaged_file_ends_a_pull(pod: Pods) -> None:
    import obstore

    first, second = pod(), pod()
    write(first, STEP, {**FILES, MANIFEST: "{}"})
    first.push(STEP, MANIFEST)
    assert first.bucket is not None
    key = first.bucket.location.key(f"{STEP}/adapter_model.safetensors")
    whole = first.bucket.look(f"{STEP}/adapter_model.safetensors")
    assert whole is not None
    assert whole.sha256 is not None
    obstore.put(first.bucket._store, key, b"WEIGHTS", attributes={"sha256": whole.sha256})

    with pytest.raises(ObjectDamaged, match=r"adapter_model\.safetensors"):
        second.pull(STEP, MANIFEST)


def test_removing_a_folder_takes_everything_and_its_manifests_first(pod: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pod()
    write(first, STEP, {**FILES, MANIFEST: "{}"})
    write(first, "team/finetunes/backend/10", {"train.log": "of another run"})
    first.push(RUN)
    first.push("team/finetunes/backend/10")
    removed: list[list[str]] = []
    remove = Bucket.remove

    def note(self: Bucket, paths: list[str]) -> None:
        paths = list(paths)
        removed.append([path.removeprefix(f"{RUN}/") for path in paths])
        remove(self, paths)

    monkeypatch.setattr(Bucket, "remove", note)
    first.remove(RUN)

    assert removed[0] == ["checkpoints/step-000010/MANIFEST.json"]
    assert first.bucket is not None
    assert [found.path for found in first.bucket.list()] == ["team/finetunes/backend/10/train.log"]


def test_everything_of_a_namespace_begins_with_its_name(pod: Pods) -> None:
    first = pod()
    write(first, "models/org/name/c0ffee", {"config.json": "{}"})
    first.push("models/org/name/c0ffee")

    assert first.bucket is not None
    assert [found.path for found in first.bucket.list()] == ["team/models/org/name/c0ffee/config.json"]
    second = pod()
    assert second.pull("models/org/name/c0ffee")
    assert read(second, "models") == {"org/name/c0ffee/config.json": "{}"}


def test_without_a_bucket_the_folder_is_the_store(tmp_path: Path) -> None:
    mirror = Mirror.from_environment(tmp_path, {})
    write(mirror, STEP, {**FILES, MANIFEST: "{}"})

    mirror.push(STEP, MANIFEST)
    mirror.remove(STEP)
    assert mirror.pull(STEP, MANIFEST)
    assert not mirror.pull(f"{RUN}/checkpoints/step-000020", MANIFEST)
    assert mirror.folders(f"{RUN}/checkpoints") == {"step-000010"}
    assert not mirror.is_remote


def test_a_pod_learns_of_its_bucket_from_its_environment(tmp_path: Path) -> None:
    told = {"CODETUNE_BUCKET": "s3://models/codetune", "CODETUNE_NAMESPACE": "team"}
    mirror = Mirror.from_environment(tmp_path, told)
    assert mirror.bucket is not None
    assert mirror.bucket.uri(mirror.key("models/x")) == "s3://models/codetune/team/models/x"
    with pytest.raises(ValueError, match="CODETUNE_NAMESPACE"):
        Mirror.from_environment(tmp_path, {"CODETUNE_BUCKET": "s3://models"})
