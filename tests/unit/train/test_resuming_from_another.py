"""A run that begins with another FineTune's adapter takes over its weights and shape; the base stays the base."""

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.contracts import CheckpointManifest, StartAdapter, TrainConfig
from codetune_api.finetune import LoraOverrides
from codetune_api.protocol import StageEvent
from codetune_trainer.errors import IncompatibleCheckpoint, InvalidParameters
from codetune_trainer.train import heritage, starting
from codetune_trainer.train.data.documents import digest_text
from safetensors.torch import load_file

if TYPE_CHECKING:
    from unit.train.conftest import Store

FIRST, SECOND = "team/first", "team/second"


@pytest.fixture
def first(store: "Store") -> "Store":
    """A store with a finished run whose adapter has a shape of its own."""
    lora = LoraOverrides(rank=2, alpha=6, dropout=0.0, target_modules=["q_proj", "v_proj"])
    store.train(store.config(FIRST, lora=lora))
    assert store.status == 0
    return store


def start_from(store: "Store", checkpoint: str = "", **changes: Any) -> StartAdapter:
    name = checkpoint or store.result.best_checkpoint
    folder = store.root / FIRST / "checkpoints" / name
    manifest = CheckpointManifest.model_validate_json((folder / "MANIFEST.json").read_bytes())
    told = {"path": f"{FIRST}/checkpoints/{name}", "digest": manifest.digest(), **changes}
    return StartAdapter(fine_tune="first", checkpoint=name, **told)


def second(store: "Store", start: StartAdapter, **changes: Any) -> TrainConfig:
    """A run on top, whose `lora` says nothing unless it is told to."""
    config = store.config(SECOND, start=start, lora=changes.pop("lora", LoraOverrides()), **changes)
    folder = store.root / SECOND
    folder.mkdir(parents=True, exist_ok=True)
    starting.bring(config, store.root, folder)
    return config


# Steps so small that float32 does not see them: what comes out is what went in.
STILL = {"learning_rate": 1e-30, "max_steps": 1, "warmup_steps": 0}


def test_the_run_begins_with_the_other_adapters_weights(first: "Store") -> None:
    best, start = first.result.best_checkpoint, start_from(first)
    loss = next(entry.holdout_loss for entry in first.result.checkpoints if entry.name == best)
    first.train(second(first, start, training=STILL))
    (made,) = first.result.checkpoints
    assert made.holdout_loss == loss
    before = load_file(first.root / FIRST / "checkpoints" / best / "adapter_model.safetensors")
    after = load_file(first.root / SECOND / "checkpoints" / made.name / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, weights in before.items():
        assert torch.allclose(weights, after[name], atol=1e-6)


def test_the_base_of_the_evaluation_is_still_the_base_model(first: "Store") -> None:
    base, start = first.evaluation.base.loss, start_from(first)
    first.train(second(first, start, training=STILL))
    assert first.evaluation.base.loss == base
    assert first.evaluation.tuned.loss < base


def test_the_run_goes_on_learning(first: "Store") -> None:
    tuned, start = first.evaluation.tuned.loss, start_from(first)
    first.train(second(first, start))
    assert first.evaluation.tuned.loss < tuned


def test_the_shape_is_taken_over_and_said(first: "Store") -> None:
    start = start_from(first)
    events = first.train(second(first, start, training=STILL))
    parameters = first.result.parameters
    assert (parameters.rank, parameters.alpha, parameters.target_modules) == (2, 6.0, ["q_proj", "v_proj"])
    assert f"The adapter begins as {start.checkpoint} of FineTune first." in parameters.notes
    said = [event.message for event in events if isinstance(event, StageEvent)]
    assert f"Starting from {start.checkpoint} of FineTune first" in said


@pytest.mark.parametrize(
    "lora",
    [
        pytest.param(LoraOverrides(rank=2, alpha=6, target_modules=["v_proj", "q_proj"], rs_lora=False), id="the same"),
        pytest.param(LoraOverrides(target_modules=[], dropout=0.2), id="nothing about the shape"),
    ],
)
def test_a_shape_that_agrees_is_accepted(first: "Store", lora: LoraOverrides) -> None:
    config = second(first, start_from(first), lora=lora)
    taken = starting.take_over(config, first.root / SECOND).lora
    assert (taken.rank, taken.alpha, taken.target_modules, taken.rs_lora) == (2, 6.0, ["q_proj", "v_proj"], False)
    assert taken.dropout == lora.dropout


@pytest.mark.parametrize(
    ("said", "lora"),
    [
        pytest.param("rank 2 instead of 4", LoraOverrides(rank=4), id="rank"),
        pytest.param("alpha 6 instead of 8", LoraOverrides(alpha=8), id="alpha"),
        pytest.param("rsLora False instead of True", LoraOverrides(rs_lora=True), id="scaling"),
        pytest.param(
            r"targetModules q_proj\+v_proj instead of k_proj", LoraOverrides(target_modules=["k_proj"]), id="layers"
        ),
        pytest.param("trainEmbeddings False instead of True", LoraOverrides(train_embeddings=True), id="embeddings"),
    ],
)
def test_another_shape_is_refused(first: "Store", said: str, lora: LoraOverrides) -> None:
    config = second(first, start_from(first), lora=lora)
    with pytest.raises(IncompatibleCheckpoint, match=said) as failure:
        first.train(config)
    assert "leaves out" in failure.value.hint


@pytest.mark.parametrize("embeddings", [False, True])
def test_trained_embeddings_are_taken_over_whatever_the_preset_says(store: "Store", embeddings: bool) -> None:
    lora = LoraOverrides(rank=2, target_modules=["q_proj"], train_embeddings=embeddings)
    store.train(store.config(FIRST, lora=lora, training={"max_steps": 2}))
    targets = store.result.parameters.target_modules
    store.train(second(store, start_from(store), preset="Smaller" if embeddings else "Embeddings", training=STILL))
    told = store.result.parameters
    assert (told.train_embeddings, told.target_modules) == (embeddings, targets)
    assert len(targets) == (3 if embeddings else 1)


def test_a_later_attempt_needs_the_other_run_no_more(first: "Store") -> None:
    config = second(first, start_from(first), training={"max_steps": 4})
    shutil.rmtree(first.root / FIRST)
    starting.bring(config, first.root, first.root / SECOND)
    first.train(config)
    assert first.status == 0


def test_an_attempt_with_a_checkpoint_of_its_own_goes_on_from_that(first: "Store") -> None:
    config = second(first, start_from(first))
    first.train(config)
    untouched = first.losses(SECOND)
    shutil.rmtree(first.root / SECOND)
    config = second(first, start_from_first(first))
    first.train(config, first.stop_after(14))
    assert first.status == 143
    first.train(config)
    assert first.losses(SECOND) == untouched


def start_from_first(store: "Store") -> StartAdapter:
    """The first run's best checkpoint, after another run has taken the place of its result."""
    folders = sorted((store.root / FIRST / "checkpoints").glob("step-*"))
    losses = {
        folder.name: json.loads((folder / "MANIFEST.json").read_text()).get("holdoutLoss", math.inf)
        for folder in folders
    }
    return start_from(store, min(losses, key=lambda name: losses[name]))


def test_a_checkpoint_that_is_gone_is_told(first: "Store") -> None:
    start = start_from(first)
    shutil.rmtree(first.root / FIRST)
    with pytest.raises(IncompatibleCheckpoint, match="not in the store any more"):
        second(first, start)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param({"digest": "sha256:" + "0" * 64}, id="another digest"),
        pytest.param({}, id="other weights"),
    ],
)
def test_a_checkpoint_that_is_not_the_one_that_was_meant_is_refused(first: "Store", damage: dict[str, str]) -> None:
    start = start_from(first, **damage)
    if not damage:
        (first.root / start.path / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(IncompatibleCheckpoint, match="not those that its digest"):
        second(first, start)
    assert [path.name for path in (first.root / SECOND).iterdir()] == []


def _texts(folder: Path, split: str) -> list[str]:
    rows = [json.loads(line) for line in (folder / "files.jsonl").read_text().splitlines()]
    return [row["text"] for row in rows if row["split"] == split]


def _hold_out(store: "Store", *texts: str) -> dict[str, str]:
    """A dataset with other files to train on."""
    return store.add_dataset("other", ["def other():\n    return 0\n" * 20], texts)


def _left_out(count: int, files: int) -> str:
    return (
        f"{count} of {files} held-out files are left out of the evaluation: the adapter that the run begins with was "
        "trained on them."
    )


def test_held_out_files_that_the_adapter_was_trained_on_do_not_judge(first: "Store", code: Any) -> None:
    seen = _texts(first.root / "dataset", "train")[:2]
    # White space at the ends of lines makes no other text.
    dataset = _hold_out(first, seen[0].replace(":\n", ":  \n"), seen[1], code("fresh", 8))
    first.train(second(first, start_from(first), training=STILL, **dataset))
    assert first.evaluation.files == 1
    assert first.evaluation.message.endswith(_left_out(2, 3))
    assert _left_out(2, 3) in first.result.parameters.notes


def test_without_any_other_held_out_file_nothing_is_judged(first: "Store") -> None:
    dataset = _hold_out(first, *_texts(first.root / "dataset", "train")[:2])
    first.train(second(first, start_from(first), training=STILL, **dataset))
    assert first.result.evaluation is None
    assert _left_out(2, 2) in first.result.parameters.notes


def test_what_was_trained_on_is_inherited_along_a_chain(first: "Store", code: Any) -> None:
    seen = _texts(first.root / "dataset", "train")[0]
    first.train(second(first, start_from(first), training=STILL, **first.add_dataset("between", [code("between", 20)])))
    name = first.result.best_checkpoint
    manifest = CheckpointManifest.model_validate_json(
        (first.root / SECOND / "checkpoints" / name / "MANIFEST.json").read_bytes()
    )
    start = StartAdapter(
        fine_tune="second", checkpoint=name, path=f"{SECOND}/checkpoints/{name}", digest=manifest.digest()
    )
    dataset = _hold_out(first, seen, code("between", 20), code("fresh", 8))
    config = first.config("team/third", start=start, lora=LoraOverrides(), training=STILL, **dataset)
    (first.root / "team/third").mkdir()
    starting.bring(config, first.root, first.root / "team/third")
    first.train(config)
    assert first.evaluation.files == 1
    assert _left_out(2, 3) in first.result.parameters.notes


def test_files_that_nobody_was_trained_on_are_all_judged_without_a_word(first: "Store") -> None:
    first.train(second(first, start_from(first), training=STILL))
    assert first.evaluation.files == 2
    assert "begins with" not in first.evaluation.message
    assert [note for note in first.result.parameters.notes if "trained on" in note] == []


UNKNOWN = "What the adapter that the run begins with was trained on is not all known"


@pytest.mark.parametrize("damage", [None, "", "codetune trained texts 1\n0123\n1\n", "codetune trained texts 1\n5\n"])
def test_a_list_that_is_missing_or_damaged_is_told_also_along_a_chain(first: "Store", damage: str | None) -> None:
    start, path = start_from(first), first.root / FIRST / "trained.txt"
    path.unlink()
    if damage is not None:
        path.write_text(damage)
    first.train(second(first, start, training=STILL))
    assert first.evaluation.files == 2
    assert UNKNOWN in first.evaluation.message
    assert any(note.startswith(UNKNOWN) for note in first.result.parameters.notes)
    assert not heritage.read(first.root / SECOND / "trained.txt").is_whole


def test_the_list_is_beside_the_checkpoints_and_holds_no_text(first: "Store") -> None:
    folder = first.root / FIRST
    texts = _texts(first.root / "dataset", "train")
    found = heritage.read(folder / "trained.txt")
    assert found == heritage.Trained(frozenset(map(digest_text, texts)))
    assert len((folder / "trained.txt").read_bytes()) < 100 + 65 * len(texts)
    assert not list((folder / "checkpoints").rglob("trained.txt"))


def test_a_path_outside_the_store_is_refused(first: "Store") -> None:
    with pytest.raises(InvalidParameters, match=r"start\.path"):
        second(first, start_from(first, path="../elsewhere"))
