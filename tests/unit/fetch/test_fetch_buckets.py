"""Base models and buckets: those of the hub are kept in the namespace's bucket, and some lie in one by themselves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import FetchConfig
from codetune_bucket.bucket import Bucket
from codetune_bucket.errors import BucketError, ObjectReplaced
from codetune_bucket.mirroring import Mirror
from codetune_trainer import fetch_bucket
from codetune_trainer.config import Places
from codetune_trainer.errors import ModelNotFound, PickledWeights, TrainerError, UnsupportedModel
from codetune_trainer.fetch import fetch
from codetune_trainer.reporting import Reporter
from standin_hub import COMMIT, Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

Pods = Callable[[], Mirror]
USED = ("config.json", "tokenizer.json", "model.safetensors")
PIN = "team/finetunes/f/1/base-model.json"


@pytest.fixture
def attempt(pod: Pods, tmp_path: Path, run: "Fetcher") -> Callable[..., Path]:
    """Fetches in a new pod; returns the model's folder."""

    def start(**more: str) -> Path:
        mirror = pod()
        run.places = Places(store=mirror.root, scratch=tmp_path / f"scratch-{mirror.root.name}", mirrored=mirror)
        return run(**more)

    return start


def test_the_hub_is_asked_for_a_model_once_for_all_pods(hub: Hub, attempt: Callable[..., Path]) -> None:
    first = attempt()
    hub.downloads.clear()
    second = attempt()

    assert hub.downloads == []
    for folder in (first, second):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: hub.files[name] for name in USED}


def test_a_commit_that_the_bucket_keeps_needs_no_hub(hub: Hub, attempt: Callable[..., Path]) -> None:
    attempt()
    hub.requests.clear()
    hub.fault = (503, "", "down")
    assert attempt(revision=COMMIT).name == COMMIT
    assert hub.requests == []


def test_attempts_of_a_run_have_the_same_commit_in_every_pod(hub: Hub, attempt: Callable[..., Path]) -> None:
    attempt(pin=PIN)
    hub.requests.clear()
    attempt(pin=PIN)
    assert hub.requests == [], "the second pod knows the commit and has it"


def test_what_is_damaged_in_the_bucket_is_fetched_from_the_hub(
    hub: Hub, attempt: Callable[..., Path], bucket: Bucket
) -> None:
    import obstore

    attempt()
    path = f"team/models/acme/coder/{COMMIT}/model.safetensors"
    obstore.put(bucket._store, bucket.location.key(path), b"x" * len(hub.files["model.safetensors"]))
    assert (attempt() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    hub.downloads.clear()
    assert (attempt() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.downloads == [], "and is whole there again"


def test_what_has_rotted_in_the_bucket_is_put_there_anew(
    hub: Hub, attempt: Callable[..., Path], bucket: Bucket
) -> None:
    import obstore

    attempt()
    path = f"team/models/acme/coder/{COMMIT}/model.safetensors"
    told = bucket.look(path)
    assert told is not None
    assert told.sha256
    rotten = b"x" * told.bytes
    obstore.put(bucket._store, bucket.location.key(path), rotten, attributes={"sha256": told.sha256})
    assert (attempt() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    hub.downloads.clear()
    assert (attempt() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert hub.downloads == []


def put(bucket: Bucket, folder: Path, files: dict[str, bytes]) -> str:
    """A model in a bucket, as its owner put it there. Returns: its URI."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        bucket.put(folder / name, f"qwen/base/{name}")
    return bucket.uri("qwen/base")


CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode()
MODEL = {"config.json": CONFIG, "tokenizer.json": b"{}", "model.safetensors": b"weights", "training.log": b"no"}


def bring(uri: str, places: Places) -> Path:
    config = FetchConfig(nonce="n" * 16, namespace="team", name="f", uri=uri)
    return fetch(config, places, Reporter(config.nonce))


def test_a_model_in_a_bucket_is_brought_and_linked(bucket: Bucket, places: Places, tmp_path: Path) -> None:
    uri = put(bucket, tmp_path / "mine", MODEL)
    folder = bring(uri, places)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: MODEL[name] for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    assert (places.scratch / "model").resolve() == folder.resolve()
    assert folder.parent == places.store / "models" / "s3" / bucket.location.bucket


def test_other_files_in_its_place_are_another_model(bucket: Bucket, places: Places, tmp_path: Path) -> None:
    first = bring(put(bucket, tmp_path / "mine", MODEL), places)
    again = bring(bucket.uri("qwen/base"), places)
    second = bring(put(bucket, tmp_path / "new", {**MODEL, "model.safetensors": b"WEIGHTS"}), places)

    assert again == first
    assert second != first
    assert (first / "model.safetensors").read_bytes() == b"weights", "whoever reads it still has it"


@pytest.mark.parametrize(
    ("expected", "files"),
    [
        pytest.param(ModelNotFound, {}, id="nothing there"),
        pytest.param(UnsupportedModel, {"config.json": CONFIG}, id="no weights"),
        pytest.param(PickledWeights, {"config.json": CONFIG, "model.bin": b"x"}, id="pickles"),
    ],
)
def test_what_is_no_model_is_refused(
    expected: type[TrainerError], files: dict[str, bytes], bucket: Bucket, places: Places, tmp_path: Path
) -> None:
    with pytest.raises(expected):
        bring(put(bucket, tmp_path / "mine", files), places)


def test_a_bucket_that_does_not_exist_is_said(places: Places, bucket_uri: str) -> None:
    with pytest.raises(BucketError, match="has no bucket"):
        bring("s3://no-such-bucket/model", places)


def test_a_model_that_is_replaced_while_it_comes_is_not_mixed(
    bucket: Bucket, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, tmp_path / "mine", MODEL)
    list_model = fetch_bucket.list_model

    def list_then_replace(asked: str) -> fetch_bucket.RemoteModel:
        listed = list_model(asked)
        put(bucket, tmp_path / "new", {**MODEL, "model.safetensors": b"WEIGHTS"})
        return listed

    monkeypatch.setattr(fetch_bucket, "list_model", list_then_replace)
    with pytest.raises(ObjectReplaced):
        bring(uri, places)
    monkeypatch.setattr(fetch_bucket, "list_model", list_model)
    folder = bring(uri, places)
    assert (folder / "model.safetensors").read_bytes() == b"WEIGHTS"
