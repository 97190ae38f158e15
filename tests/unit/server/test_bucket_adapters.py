"""Adapters that lie in a bucket: brought into the pod, proven, and refused by name when they can't be."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_api.digests import FileEntry
from codetune_bucket.bucket import Bucket, Remote
from codetune_bucket.errors import BucketUnavailable
from codetune_bucket.mirroring import Mirror
from codetune_server.copying import AdapterCopies
from codetune_server.keeping import AdapterKeeper
from codetune_server.refusing import Refused
from codetune_server.routes import VllmRoutes
from codetune_server.settings import ServerSettings
from codetune_server.verifying import AdapterVerifier

if TYPE_CHECKING:
    from unit.server.conftest import FakeVllm, Pod

    Make = Callable[..., DesiredAdapter]

CONFIG, WEIGHTS = ADAPTER_FILES
STEP = "team/finetunes/mine/1/checkpoints/step-000010"


@pytest.fixture
def settings(settings: ServerSettings, bucket: Bucket) -> ServerSettings:
    """A pod whose store is a bucket."""
    return replace(settings, mirror=Mirror(settings.store, bucket, "team"))


@pytest.fixture
def verifier(settings: ServerSettings) -> AdapterVerifier:
    return AdapterVerifier(
        settings.store, AdapterCopies(settings.cache), settings.base_model, 16, mirror=settings.mirror
    )


@pytest.fixture
def put(make_adapter: "Make", settings: ServerSettings, bucket: Bucket) -> "Make":
    """Puts an adapter into the bucket; returns that it is wanted, by its place in the store."""

    def make(name: str, path: str = STEP, **options: int) -> DesiredAdapter:
        adapter = make_adapter(name, path, **options)
        for file in ADAPTER_FILES:
            bucket.put(settings.store / path / file, f"{path}/{file}")
            (settings.store / path / file).unlink()
        return adapter

    return make


async def test_an_adapter_of_the_store_is_served_out_of_the_bucket(pod: "Pod", put: "Make") -> None:
    wanted = put("tuned")
    (told,) = (await pod.put(wanted)).adapters
    assert (told.phase, told.digest) == ("Ready", wanted.digest)
    (folder,) = pod.vllm.loaded.values()
    assert Path(folder).is_relative_to(pod.settings.cache)
    assert sorted(path.name for path in Path(folder).iterdir()) == sorted(ADAPTER_FILES)


async def test_a_pod_that_starts_holds_its_adapters_before_it_is_ready(
    start_pod: Callable[[DesiredAdapters], Awaitable["Pod"]], put: "Make"
) -> None:
    pod = await start_pod(DesiredAdapters(adapters=[put("tuned")]))
    async with asyncio.timeout(30):
        while (await pod.client.get("/codetune/ready")).status_code != 200:
            await asyncio.sleep(0)
    assert len(pod.vllm.loaded) == 1


@pytest.mark.parametrize(
    ("seconds", "ready"),
    [pytest.param(3600, False, id="not before it is there"), pytest.param(0, True, id="but not for ever")],
)
async def test_a_pod_that_starts_waits_for_a_store_that_is_away(
    seconds: float,
    ready: bool,
    vllm: "FakeVllm",
    verifier: AdapterVerifier,
    put: "Make",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted, look, away = put("tuned"), Bucket.look, [True]

    def fail(self: Bucket, path: str) -> Remote | None:
        if away:
            raise BucketUnavailable("The endpoint is away.", "Bring it back.")
        return look(self, path)

    monkeypatch.setattr(Bucket, "look", fail)
    keeper = AdapterKeeper(VllmRoutes(vllm, {}), verifier, first_retry_seconds=0.01, wait_seconds=seconds)
    generation = keeper.want(DesiredAdapters(adapters=[wanted]))
    task = asyncio.create_task(keeper.run())
    try:
        await keeper.wait_settled(generation, 30)
        (told,) = keeper.report().adapters
        assert (told.reason, keeper.is_ready) == ("StoreUnavailable", ready)
        away.clear()
        async with asyncio.timeout(30):
            while not (vllm.loaded and keeper.is_ready):
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_broken_adapter_keeps_no_pod_from_being_ready(
    vllm: "FakeVllm", verifier: AdapterVerifier, put: "Make", bucket: Bucket
) -> None:
    wanted = put("tuned")
    bucket.remove([f"{STEP}/{WEIGHTS}"])
    keeper = AdapterKeeper(VllmRoutes(vllm, {}), verifier)
    generation = keeper.want(DesiredAdapters(adapters=[wanted]))
    task = asyncio.create_task(keeper.run())
    await keeper.wait_settled(generation, 30)
    assert (keeper.report().adapters[0].reason, keeper.is_ready) == ("AdapterNotFound", True)
    task.cancel()
    await asyncio.wait([task])


def test_an_adapter_that_is_replaced_while_it_is_copied_is_not_mixed(
    verifier: AdapterVerifier, put: "Make", bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bucket.uri(STEP).removeprefix("s3://")
    wanted = put("tuned").model_copy(update={"path": path, "root": "S3", "digest": None})
    fetch, replaced = Bucket.fetch, list[DesiredAdapter]()

    def replace_then_fetch(self: Bucket, name: str, *arguments: Any, **options: Any) -> FileEntry:
        if name == WEIGHTS and not replaced:
            replaced.append(put("tuned", content=1, rank=4))
        return fetch(self, name, *arguments, **options)

    monkeypatch.setattr(Bucket, "fetch", replace_then_fetch)
    with pytest.raises(Refused, match="was replaced while it was read"):
        verifier.verify(wanted)
    assert verifier.verify(wanted).digest == replaced[0].digest


async def test_an_adapter_by_uri_comes_from_another_bucket(pod: "Pod", put: "Make", bucket: Bucket) -> None:
    wanted = put("tuned")
    path = bucket.uri(STEP).removeprefix("s3://")
    for digest in (wanted.digest, None):
        (told,) = (await pod.put(wanted.model_copy(update={"path": path, "root": "S3", "digest": digest}))).adapters
        assert (told.phase, told.digest) == ("Ready", wanted.digest)


async def test_a_new_version_in_its_place_is_another_adapter(pod: "Pod", put: "Make", bucket: Bucket) -> None:
    path = bucket.uri(STEP).removeprefix("s3://")
    first = put("tuned", content=1)
    wanted = first.model_copy(update={"path": path, "root": "S3", "digest": None})
    assert (await pod.put(wanted)).adapters[0].digest == first.digest
    second = put("tuned", content=2)
    assert (await pod.put(wanted)).adapters[0].digest == second.digest


def test_what_is_in_the_pod_already_needs_no_bucket(
    verifier: AdapterVerifier, put: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = put("tuned")
    first = verifier.verify(wanted)
    monkeypatch.setattr(Bucket, "look", lambda *_: pytest.fail("asked"))
    assert verifier.verify(wanted) == first


def damage(bucket: Bucket) -> None:
    import obstore

    found = bucket.look(f"{STEP}/{WEIGHTS}")
    assert found is not None
    assert found.sha256 is not None
    key = bucket.location.key(f"{STEP}/{WEIGHTS}")
    obstore.put(bucket._store, key, b"x" * found.bytes, attributes={"sha256": found.sha256})


@pytest.mark.parametrize(
    ("reason", "words", "hurt"),
    [
        pytest.param("DigestMismatch", "was changed or damaged", damage, id="damaged"),
        pytest.param(
            "AdapterNotFound",
            "is not there",
            lambda bucket: bucket.remove([f"{STEP}/{WEIGHTS}"]),
            id="half of it",
        ),
    ],
)
def test_what_is_not_whole_in_the_bucket_is_refused(
    reason: str, words: str, hurt: Callable[[Bucket], None], verifier: AdapterVerifier, put: "Make", bucket: Bucket
) -> None:
    wanted = put("tuned")
    hurt(bucket)
    with pytest.raises(Refused, match=words) as refused:
        verifier.verify(wanted)
    assert refused.value.reason == reason


def test_another_adapter_than_the_one_that_was_meant_is_refused(verifier: AdapterVerifier, put: "Make") -> None:
    wanted = put("tuned").model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(Refused, match="has the digest") as refused:
        verifier.verify(wanted)
    assert refused.value.reason == "DigestMismatch"


@pytest.mark.parametrize(
    ("reason", "words", "path", "change"),
    [
        pytest.param("StoreUnavailable", "has no bucket", "no-such-bucket/x", {}, id="no such bucket"),
        pytest.param("AdapterNotFound", "correct the adapter's uri", "Nonsense!/x", {}, id="no place"),
        pytest.param("AdapterNotFound", "is not there", "", {}, id="an empty folder"),
        pytest.param("StoreDenied", "credentials", "", {"AWS_SECRET_ACCESS_KEY": "wrong"}, id="wrong key"),
    ],
)
def test_what_can_t_be_reached_is_refused_with_a_cure(
    reason: str,
    words: str,
    path: str,
    change: dict[str, str],
    verifier: AdapterVerifier,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    path = path or bucket.uri("nothing").removeprefix("s3://")
    with pytest.raises(Refused, match=words) as refused:
        verifier.verify(DesiredAdapter(name="tuned", path=path, root="S3"))
    assert refused.value.reason == reason


def test_no_room_in_the_pod_is_said_before_anything_comes(
    settings: ServerSettings, put: "Make", monkeypatch: pytest.MonkeyPatch
) -> None:
    small = AdapterVerifier(
        settings.store, AdapterCopies(settings.cache, 10), settings.base_model, 16, mirror=settings.mirror
    )
    wanted = put("tuned")
    monkeypatch.setattr(Bucket, "fetch", lambda *_: pytest.fail("brought"))
    with pytest.raises(Refused) as refused:
        small.verify(wanted)
    assert refused.value.reason == "CacheFull"
