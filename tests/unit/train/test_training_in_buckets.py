"""A run whose store is a bucket: each attempt is a pod with an empty folder, and goes on where the last one was.

Skipped here: whole runs on several nodes; processes of one machine share their folder. What a node does to have a
checkpoint that another one wrote is here.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import CheckpointManifest, StartAdapter, TrainConfig
from codetune_api.protocol import CheckpointEvent, Event, ResumedEvent
from codetune_bucket.bucket import Bucket
from codetune_bucket.mirroring import Mirror
from codetune_trainer.train.storing import drop_checkpoints, have_checkpoint

if TYPE_CHECKING:
    from unit.train.conftest import Process, Store

OUTPUT = "team/finetunes/tuned/1"
DATASET = "team/projects/code/data"


class Pods:
    """Starts attempts of a run, each with nothing but the bucket."""

    def __init__(self, store: "Store", uri: str, bucket: Bucket, tmp_path: Path) -> None:
        self._store, self._uri, self._tmp_path = store, uri, tmp_path
        self.bucket = bucket
        self.started = 0
        self.status = 0
        """Exit code of the last pod that ran to its end."""
        dataset = Mirror(tmp_path / "scan", bucket, "team")
        shutil.copytree(store.root / "dataset", dataset.root / DATASET)
        dataset.push(DATASET, "manifest.json")

    def start(self, config: TrainConfig, **environment: str) -> "Process":
        """One more pod."""
        self.started += 1
        root = self._tmp_path / f"pod-{self.started}"
        (root / config.output).parent.mkdir(parents=True)
        told = {"CODETUNE_BUCKET": self._uri, "CODETUNE_NAMESPACE": "team", **environment}
        return replace(self._store, root=root).start(config, **told)

    def run(self, config: TrainConfig, **environment: str) -> "Process":
        """A pod to its end."""
        pod = self.start(config, **environment)
        self.status = pod.end()
        return pod

    def checkpoints(self) -> dict[str, set[str]]:
        """Names of the checkpoints in the bucket, and of what is in each."""
        found: dict[str, set[str]] = {}
        for remote in self.bucket.list(f"{OUTPUT}/checkpoints"):
            name, _, file = remote.path.removeprefix(f"{OUTPUT}/checkpoints/").partition("/")
            found.setdefault(name, set()).add(file)
        return found


@pytest.fixture
def pods(store: "Store", bucket_uri: str, bucket: Bucket, tmp_path: Path) -> Pods:
    return Pods(store, bucket_uri, bucket, tmp_path)


@pytest.fixture
def config(store: "Store") -> TrainConfig:
    return store.config(OUTPUT, dataset=DATASET)


def last_words(pod: "Process") -> dict[str, str]:
    told: dict[str, str] = json.loads(pod.termination.read_text())
    return told


def is_checkpoint(event: Event) -> bool:
    return isinstance(event, CheckpointEvent)


def resumed_from(pod: "Process") -> list[tuple[str, str]]:
    return [(event.checkpoint, event.message) for event in pod.events if isinstance(event, ResumedEvent)]


def test_a_run_leaves_in_the_bucket_what_it_says_that_it_has(pods: Pods, config: TrainConfig, bucket_uri: str) -> None:
    pod = pods.run(config)
    assert pods.status == 0, "".join(pod.output)

    told = [event.checkpoint for event in pod.events if isinstance(event, CheckpointEvent)]
    assert told[-1].uri == f"{bucket_uri}/{OUTPUT}/checkpoints/step-000006"
    whole = {"MANIFEST.json", "adapter_config.json", "adapter_model.safetensors"}
    assert {name: whole <= files for name, files in pods.checkpoints().items()} == {
        "step-000004": True,
        "step-000006": True,
    }
    files = {remote.path.removeprefix(f"{OUTPUT}/") for remote in pods.bucket.list(OUTPUT)}
    assert {"config.json", "metrics.jsonl", "train.log", "baseline.json", "evaluation.json", "recovery.json"} <= files
    log = next(remote for remote in pods.bucket.list(OUTPUT) if remote.path.endswith("train.log"))
    said = pods.bucket.read(log.path, 0, log.bytes).decode()
    assert "event=result" in said, "the log is kept to its end"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said


def test_a_pod_after_a_killed_one_goes_on_from_the_bucket(pods: Pods, config: TrainConfig) -> None:
    slow = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 400})})
    first = pods.start(slow)
    first.wait_for(is_checkpoint)
    first.end(signal.SIGKILL)
    kept = max(name for name, files in pods.checkpoints().items() if "MANIFEST.json" in files)

    second = pods.start(slow)
    second.wait_for(is_checkpoint)
    second.end(signal.SIGTERM)
    assert resumed_from(second) == [(kept, "")]


def test_a_pod_that_is_stopped_keeps_its_last_step(pods: Pods, config: TrainConfig) -> None:
    slow = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 400})})
    first = pods.start(slow)
    first.wait_for(is_checkpoint)
    assert first.end(signal.SIGTERM) == 143
    kept = max(pods.checkpoints())

    second = pods.start(slow)
    second.wait_for(is_checkpoint)
    second.end(signal.SIGKILL)
    assert resumed_from(second) == [(kept, "")]


def damage(bucket: Bucket) -> None:
    """Other weights under the digest of the right ones."""
    import obstore

    path = f"{OUTPUT}/checkpoints/step-000006/adapter_model.safetensors"
    found = bucket.look(path)
    assert found is not None
    assert found.sha256 is not None
    obstore.put(bucket._store, bucket.location.key(path), b"x" * found.bytes, attributes={"sha256": found.sha256})


@pytest.mark.parametrize(
    "hurt",
    [
        pytest.param(damage, id="damaged"),
        pytest.param(
            lambda bucket: bucket.remove([f"{OUTPUT}/checkpoints/step-000006/MANIFEST.json"]), id="half written"
        ),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over_and_said(
    hurt: Callable[[Bucket], None], pods: Pods, config: TrainConfig
) -> None:
    pods.run(config)
    assert pods.status == 0
    hurt(pods.bucket)
    again = pods.run(config)

    assert pods.status == 0, "".join(again.output)
    ((name, message),) = resumed_from(again)
    assert name == "step-000004"
    assert "step-000006 was removed" in message
    assert set(pods.checkpoints()) == {"step-000004", "step-000006"}, "made anew"


def test_a_run_that_is_done_only_reports_in_another_pod(pods: Pods, config: TrainConfig) -> None:
    first, second = pods.run(config), pods.run(config)
    assert pods.status == 0
    assert not [event for event in second.events if is_checkpoint(event)]
    assert second.events[-1] == first.events[-1], "with the base's scores as they were measured"


def test_a_run_starts_from_the_adapter_of_another_one_in_the_bucket(pods: Pods, config: TrainConfig) -> None:
    pods.run(config)
    assert pods.status == 0
    manifest = pods.bucket.look(f"{OUTPUT}/checkpoints/step-000006/MANIFEST.json")
    assert manifest is not None
    told = json.loads(pods.bucket.read(manifest.path, 0, manifest.bytes))
    path = f"{OUTPUT}/checkpoints/step-000006"
    digest = CheckpointManifest.model_validate(told).digest()
    start = StartAdapter(fine_tune="tuned", checkpoint="step-000006", path=path, digest=digest)
    other = config.model_copy(update={"output": "team/finetunes/other/2", "start": start})
    pods.run(other)
    assert pods.status == 0
    pods.bucket.remove([remote.path for remote in pods.bucket.list(OUTPUT)])
    pods.run(other)
    assert pods.status == 0, "the other run may go: this one has taken the adapter over"
    listed = pods.bucket.look("team/finetunes/other/2/trained.txt")
    assert listed is not None
    head = pods.bucket.read(listed.path, 0, listed.bytes).splitlines()[0]
    assert head == b"codetune trained texts 1", "with the whole list of what it was trained on"


@pytest.mark.parametrize(
    ("expected", "exit_code", "change"),
    [
        pytest.param("StoreDenied", 64, {"AWS_SECRET_ACCESS_KEY": "wrong"}, id="wrong key"),
        pytest.param("StoreUnavailable", 1, {"CODETUNE_BUCKET": "s3://no-such-bucket"}, id="no such bucket"),
    ],
)
def test_what_keeps_a_run_from_the_bucket_is_its_last_word(
    expected: str, exit_code: int, change: dict[str, str], pods: Pods, config: TrainConfig
) -> None:
    pod = pods.run(config, **change)
    told = last_words(pod)
    assert (pods.status, told["reason"]) == (exit_code, expected)
    assert told["hint"]
    assert "wrong" not in "".join(pod.output)


def test_a_dataset_that_is_not_in_the_bucket_is_missed_by_name(pods: Pods, config: TrainConfig) -> None:
    pod = pods.run(config.model_copy(update={"dataset": "team/projects/code/other"}))
    assert last_words(pod)["reason"] == "DatasetMissing"


def test_a_node_brings_the_checkpoint_that_another_one_wrote(
    pod: Callable[[], Mirror], bucket: Bucket, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("adapter_model.safetensors", "MANIFEST.json"):
        bucket.put(tmp_path / "file", f"{OUTPUT}/checkpoints/step-000010/{name}")
    mirror = pod()
    folder = mirror.root / OUTPUT
    (folder / "checkpoints").mkdir(parents=True)
    told = SimpleNamespace(output=OUTPUT)
    run: Any = SimpleNamespace(mirror=mirror, config=told, folder=folder, checkpoints=folder / "checkpoints")

    found = have_checkpoint(run, "step-000010")
    assert sorted(path.name for path in found.iterdir()) == ["MANIFEST.json", "adapter_model.safetensors"]
    bucket.remove(remote.path for remote in bucket.list(OUTPUT))
    assert have_checkpoint(run, "step-000010") == found, "what is here is not asked for again"


@pytest.mark.parametrize("leads", [True, False], ids=["where the first process is", "on another node"])
def test_a_checkpoint_that_comes_again_is_removed_on_every_node(
    pod: Callable[[], Mirror], bucket: Bucket, tmp_path: Path, leads: bool
) -> None:
    (tmp_path / "file").write_text("x")
    bucket.put(tmp_path / "file", f"{OUTPUT}/checkpoints/step-000010/MANIFEST.json")
    mirror, told, group = pod(), SimpleNamespace(output=OUTPUT), SimpleNamespace(leads=leads)
    folder = mirror.root / OUTPUT
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints = folder / "checkpoints"
    run: Any = SimpleNamespace(mirror=mirror, config=told, folder=folder, checkpoints=checkpoints, group=group)
    have_checkpoint(run, "step-000010")
    drop_checkpoints(run, ["step-000010"])
    assert list(checkpoints.iterdir()) == []
    assert bool(list(bucket.list(OUTPUT))) is not leads
