"""A broken adapter is refused by name, with a reason and a cure, before vLLM is shown it; the others go on serving."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_api.digests import FileEntry, digest_files

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Make = Callable[..., DesiredAdapter]


def folder_digest(folder: Path) -> str:
    data = {name: (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    return digest_files({n: FileEntry(sha256=hashlib.sha256(d).hexdigest(), bytes=len(d)) for n, d in data.items()})


WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def cut(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def rewrite_header(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    data = (folder / WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def rename_tensors(header: dict[str, object]) -> object:
    return {name.replace("lora_A", "weight"): entry for name, entry in header.items()}


def widen_shapes(header: dict[str, object]) -> object:
    return {name: {**entry, "shape": [64, 64]} for name, entry in header.items() if isinstance(entry, dict)}


def change_dtype(header: dict[str, object]) -> object:
    return {name: {**entry, "dtype": "F7"} for name, entry in header.items() if isinstance(entry, dict)}


def lose_offsets(header: dict[str, object]) -> object:
    return {name: {**entry, "data_offsets": [1]} for name, entry in header.items() if isinstance(entry, dict)}


def configure(folder: Path, **changes: object) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace_with_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def link_outside(folder: Path) -> None:
    outside = folder.parent.parent / "secret.safetensors"
    outside.write_bytes((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(outside)


DAMAGES: list[tuple[str, str, Callable[[Path], object], str]] = [
    ("no-weights", "AdapterNotFound", lambda f: (f / WEIGHTS).unlink(), "adapter_model.safetensors can't be read"),
    ("no-config", "AdapterNotFound", lambda f: (f / CONFIG).unlink(), "adapter_config.json can't be read"),
    ("link-out-of-the-store", "AdapterNotFound", link_outside, "outside the artifact store"),
    ("folder-for-a-file", "InvalidAdapter", replace_with_folder, "is not a file"),
    ("cut-weights", "InvalidAdapter", cut, "it was cut or written over"),
    ("empty-weights", "InvalidAdapter", lambda f: (f / WEIGHTS).write_bytes(b""), "no safetensors file"),
    (
        "pickled-weights",
        "InvalidAdapter",
        lambda f: (f / WEIGHTS).write_bytes(b"\x80\x02}q\x00." * 9),
        "no safetensors",
    ),
    (
        "header-not-json",
        "InvalidAdapter",
        lambda f: (f / WEIGHTS).write_bytes(b"\x04" + bytes(7) + b"{x}}"),
        "its header is not JSON",
    ),
    ("header-a-list", "InvalidAdapter", lambda f: rewrite_header(f, lambda h: [1]), "not a JSON object"),
    ("no-tensors", "InvalidAdapter", lambda f: rewrite_header(f, lambda h: {}), "cut or written over"),
    ("no-lora-tensors", "InvalidAdapter", lambda f: rewrite_header(f, rename_tensors), "no lora_A tensor"),
    ("shape-and-data-differ", "InvalidAdapter", lambda f: rewrite_header(f, widen_shapes), "don't fit its shape"),
    ("unknown-dtype", "InvalidAdapter", lambda f: rewrite_header(f, change_dtype), "known dtype"),
    ("half-an-offset", "InvalidAdapter", lambda f: rewrite_header(f, lose_offsets), "data_offsets [1]"),
    ("config-not-json", "InvalidAdapter", lambda f: (f / CONFIG).write_text("{"), "is not JSON"),
    ("config-a-list", "InvalidAdapter", lambda f: (f / CONFIG).write_text("[]"), "not a JSON object"),
    ("config-too-large", "InvalidAdapter", lambda f: (f / CONFIG).write_text(" " * (1 << 20) + "{}"), "larger than"),
    ("another-method", "InvalidAdapter", lambda f: configure(f, peft_type="IA3"), "only LORA is served"),
    ("rank-a-word", "InvalidAdapter", lambda f: configure(f, r="eight"), "positive whole number"),
    ("rank-zero", "InvalidAdapter", lambda f: configure(f, r=0), "positive whole number"),
    (
        "another-base",
        "BaseModelMismatch",
        lambda f: configure(f, base_model_name_or_path="hf://org/other"),
        "hf://org/ot",
    ),
    ("rank-in-config", "RankTooHigh", lambda f: configure(f, r=64), "has rank 64"),
    ("rank-of-one-layer", "RankTooHigh", lambda f: configure(f, rank_pattern={"q_proj": 128}), "has rank 128"),
]


@pytest.mark.parametrize(("reason", "damage", "sentence"), [pytest.param(*d[1:], id=d[0]) for d in DAMAGES])
async def test_a_damaged_folder_is_refused_by_name_and_its_neighbour_serves(
    reason: str, damage: Callable[[Path], object], sentence: str, pod: "Pod", make_adapter: "Make"
) -> None:
    good = make_adapter("good")
    make_adapter("bad")
    damage(pod.store / "bad")
    report = await pod.put(DesiredAdapter(name="bad", path="bad"), good)
    assert report.ready
    bad, neighbour = report.adapters
    assert (bad.phase, bad.reason, bad.digest) == ("Failed", reason, None)
    assert sentence in bad.message
    assert neighbour.phase == "Ready"
    assert report.models == ["base", "good"]
    assert len([path for path, _ in pod.vllm.calls if path == "/v1/load_lora_adapter"]) == 1


async def test_the_rank_of_the_tensors_counts_whatever_the_config_says(pod: "Pod", make_adapter: "Make") -> None:
    make_adapter("bad", rank=64)
    configure(pod.store / "bad", r=8)
    report = await pod.put(DesiredAdapter(name="bad", path="bad"))
    assert report.adapters[0].reason == "RankTooHigh"


@pytest.mark.parametrize(
    "base",
    [
        pytest.param("hf://org/base", id="default revision left out"),
        pytest.param("/models/base", id="a folder, as PEFT writes it"),
        pytest.param(None, id="nothing"),
    ],
)
async def test_a_base_model_that_may_be_the_same_is_taken(base: str | None, pod: "Pod", make_adapter: "Make") -> None:
    report = await pod.put(make_adapter("tuned", base_model_name_or_path=base))
    assert report.adapters[0].phase == "Ready"


async def test_a_folder_with_another_digest_is_refused(pod: "Pod", make_adapter: "Make") -> None:
    wanted = make_adapter("tuned", content=1)
    make_adapter("tuned", content=2)
    report = await pod.put(wanted)
    assert report.adapters[0].reason == "DigestMismatch"
    assert str(wanted.digest) in report.adapters[0].message
    assert pod.vllm.loaded == {}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("../outside", id="parent"),
        pytest.param("a/../../outside", id="parent in the middle"),
        pytest.param("{outside}", id="absolute"),
        pytest.param("link", id="link"),
        pytest.param(".", id="the store itself"),
    ],
)
async def test_a_path_that_leaves_the_store_is_refused(path: str, pod: "Pod", make_adapter: "Make") -> None:
    make_adapter("a")
    outside = pod.store.parent / "outside"
    os.rename(pod.store / "a", outside)
    (pod.store / "a").mkdir()
    (pod.store / "link").symlink_to(outside)
    report = await pod.put(DesiredAdapter(name="tuned", path=path.format(outside=outside)))
    assert report.adapters[0].reason == "AdapterNotFound"
    assert "outside the artifact store" in report.adapters[0].message


@pytest.mark.parametrize("name", ["", "a@b", "-x", "a b", 'a"b', "x" * 129])
async def test_a_name_that_is_no_model_name_is_refused(name: str, pod: "Pod", make_adapter: "Make") -> None:
    report = await pod.put(make_adapter(name, path="tuned"))
    assert report.adapters[0].reason == "InvalidAdapter"
    assert "can't be a model name" in report.adapters[0].message


async def test_the_base_models_name_is_not_given_to_an_adapter(pod: "Pod", make_adapter: "Make") -> None:
    report = await pod.put(make_adapter("base"))
    assert report.adapters[0].reason == "InvalidAdapter"
    assert report.models == ["base"]


async def test_vllms_own_refusal_is_passed_on_in_its_words(pod: "Pod", make_adapter: "Make") -> None:
    pod.vllm.refused["bad"] = "load-wrong-shape"
    report = await pod.put(make_adapter("bad"), make_adapter("good"))
    assert report.adapters[0].reason == "LoadFailed"
    assert "The size of tensor a (64) must match the size of tensor b (96)" in report.adapters[0].message
    assert report.adapters[1].phase == "Ready"


async def test_a_load_whose_answer_was_lost_counts_when_vllm_holds_it(pod: "Pod", make_adapter: "Make") -> None:
    tuned = make_adapter("tuned")
    pod.vllm.loaded[f"tuned@{str(tuned.digest)[7:19]}"] = "elsewhere"
    assert (await pod.put(tuned)).adapters[0].phase == "Ready"


async def test_a_refused_replacement_leaves_the_old_version_serving(pod: "Pod", make_adapter: "Make") -> None:
    old = make_adapter("tuned", "one", content=1)
    new = make_adapter("tuned", "two", content=2)
    await pod.put(old)
    cut(pod.store / "two")
    report = await pod.put(new)
    state = report.adapters[0]
    assert (state.phase, state.reason) == ("Failed", "DigestMismatch")
    assert (state.digest, state.desired_digest) == (old.digest, new.digest)
    assert report.models == ["base", "tuned"]
    assert (await pod.complete("tuned")).status_code == 200


async def test_files_that_change_while_vllm_reads_them_are_not_those_that_it_reads(
    pod: "Pod", make_adapter: "Make"
) -> None:
    tuned = make_adapter("tuned", content=1)
    pod.vllm.may_load.clear()
    await pod.put(tuned, wait=0)
    await pod.until(lambda: any(path == "/v1/load_lora_adapter" for path, _ in pod.vllm.calls))
    make_adapter("tuned", content=2)
    pod.vllm.may_load.set()
    report = await pod.put(tuned)
    assert (report.adapters[0].phase, report.adapters[0].digest) == ("Ready", tuned.digest)
    (folder,) = pod.vllm.loaded.values()
    assert folder_digest(Path(folder)) == tuned.digest


async def test_a_refused_adapter_serves_once_its_folder_is_whole(pod: "Pod", make_adapter: "Make") -> None:
    wanted = make_adapter("tuned")
    os.rename(pod.store / "tuned", pod.store / "not-yet")
    assert (await pod.put(wanted)).adapters[0].reason == "AdapterNotFound"
    os.rename(pod.store / "not-yet", pod.store / "tuned")
    assert (await pod.put(wanted)).adapters[0].phase == "Ready"


async def test_a_new_attempt_forgets_why_the_last_one_failed(pod: "Pod", make_adapter: "Make") -> None:
    make_adapter("tuned")
    cut(pod.store / "tuned")
    wanted = DesiredAdapter(name="tuned", path="tuned")
    assert (await pod.put(wanted)).adapters[0].phase == "Failed"
    make_adapter("tuned")
    pod.vllm.may_load.clear()
    state = (await pod.put(wanted, wait=0)).adapters[0]
    assert (state.phase, state.reason, state.message) == ("Loading", "", "")
