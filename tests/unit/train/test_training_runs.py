"""Whole runs of the recipe on a tiny model: what they leave behind, and that an interruption changes nothing.

Real processes that are killed are in test_training_interrupted.py; here SIGTERM comes at places that a test can name.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.finetune import Checkpoints, EarlyStopping, TrainingOverrides
from codetune_api.protocol import CheckpointEvent, ProgressEvent, ResumedEvent, StageEvent
from codetune_trainer.errors import IncompatibleCheckpoint
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MistralConfig

if TYPE_CHECKING:
    from unit.train.conftest import Store


def test_a_run_learns_and_says_so(store: "Store") -> None:
    events = store.train(store.config(training={"max_steps": 12}))
    result = store.result
    assert store.status == 0
    assert result.steps == 12
    assert store.evaluation.improvement > 0.05
    assert store.evaluation.base.loss > store.evaluation.tuned.loss
    assert store.evaluation.files == 2
    assert f"{store.evaluation.tokens} tokens" in store.evaluation.message
    assert [event.stage for event in events if isinstance(event, StageEvent)] == [
        "Tokenizing", "LoadingModel", "Baseline", "Training", "Evaluating",
    ]  # fmt: skip


def test_progress_never_goes_back_and_reaches_the_last_step(store: "Store") -> None:
    events = [event for event in store.train(store.config()) if isinstance(event, ProgressEvent)]
    assert (events[-1].step, events[-1].total) == (6, 6)
    assert events[-1].tokens_per_second
    steps = [event.step for event in events]
    assert steps == sorted(steps)


def test_the_loss_chart_spans_the_run_with_held_out_losses_at_checkpoints(store: "Store") -> None:
    store.train(store.config())
    result = store.result
    assert [point.step for point in result.loss_history] == [1, 2, 3, 4, 5, 6]
    assert [point.step for point in result.loss_history if point.holdout_loss is not None] == [2, 4, 6]


def test_epochs_are_passes_over_the_files_where_each_file_has_its_own_sequence(
    store: "Store", tmp_path: Path, make_tokenizer: Any
) -> None:
    shape = {"vocab_size": 264, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 256, "eos_token_id": 257}
    config = MistralConfig(**shape, **heads, sliding_window=32, max_position_embeddings=256)
    store.model = tmp_path / "narrow"
    AutoModelForCausalLM.from_config(config).save_pretrained(str(store.model))
    make_tokenizer().save_pretrained(str(store.model))
    files = [f"a = {index}\n" for index in range(23)] + ["b = 2\n" * 20]  # the last one takes two sequences
    store.train(
        store.config(
            **store.add_dataset("small", files), training={"max_steps": None, "epochs": 2, "batch_tokens": 320}
        )
    )
    told = store.result.parameters
    assert (told.max_steps, told.epochs) == (10, 2.0)
    state = json.loads((store.root / "run" / "checkpoints" / "step-000010" / "state" / "state.json").read_text())
    assert (state["epoch"], state["sequence"]) == (1, 25)


def test_the_base_models_weights_stay_as_they_were(store: "Store") -> None:
    before = hashlib.sha256((store.model / "model.safetensors").read_bytes()).digest()
    store.train(store.config())
    result = store.result
    assert hashlib.sha256((store.model / "model.safetensors").read_bytes()).digest() == before
    folder = store.root / "run" / "checkpoints" / result.best_checkpoint
    assert {"lora_" in name for name in load_file(folder / "adapter_model.safetensors")} == {True}


def test_plain_peft_loads_the_adapter_and_measures_the_loss_that_was_reported(store: "Store") -> None:
    store.train(store.config())
    result = store.result
    folder = store.root / "run" / "checkpoints" / result.latest_checkpoint
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "file:///tiny"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(store.model), str(folder)).eval()
    rows = [json.loads(line) for line in (store.root / "dataset" / "files.jsonl").read_text().splitlines()]
    total, count = 0.0, 0
    for row in rows:
        if row["split"] == "holdout":
            tokens = [*row["text"].encode(), 257]
            for start in range(0, len(tokens), 64):
                piece = torch.tensor([_byte_ids(tokens[start : start + 64])])
                with torch.no_grad():
                    total += model(input_ids=piece, labels=piece).loss.item() * (piece.shape[1] - 1)
                count += piece.shape[1] - 1
    latest = next(found for found in result.checkpoints if found.name == result.latest_checkpoint)
    assert count == store.evaluation.tokens
    assert total / count == pytest.approx(latest.holdout_loss, abs=1e-5)


def _byte_ids(tokens: list[int]) -> list[int]:
    """Bytes as the byte-level tokenizer numbers them: by the letters that stand for them."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [
        token if token >= 256 else alphabet.index(spelled.pre_tokenize_str(chr(token))[0][0]) for token in tokens
    ]  # fmt: skip


def test_the_run_folder_holds_configuration_metrics_and_log_without_the_nonce(store: "Store") -> None:
    store.train(store.config())
    folder = store.root / "run"
    config = json.loads((folder / "config.json").read_text())
    assert config["datasetRevision"] == store.revision
    assert "nonce" not in config
    assert sorted(store.losses()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        pytest.param(1, ["step-000006"], id="only the latest, which is the best"),
        pytest.param(2, ["step-000004", "step-000006"], id="two"),
        pytest.param(9, ["step-000002", "step-000004", "step-000006"], id="more than there are"),
    ],
)
def test_keep_says_how_many_of_the_latest_checkpoints_stay(store: "Store", keep: int, left: list[str]) -> None:
    store.train(store.config(checkpoints=Checkpoints(every_steps=2, keep=keep)))
    result = store.result
    assert result.best_checkpoint == "step-000006"  # the loss still falls
    assert store.checkpoints() == left
    assert [found.name for found in result.checkpoints] == left


def test_the_best_checkpoint_stays_and_is_what_the_evaluation_is_about(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 2.0, 3.0, 4.0])  # base, then three checkpoints
    monkeypatch.setattr("codetune_trainer.train.scoring.evaluating.mean_loss", lambda *_: next(losses))
    events = store.train(store.config(checkpoints=Checkpoints(every_steps=2, keep=1)))
    result = store.result
    assert (result.best_checkpoint, result.latest_checkpoint) == ("step-000002", "step-000006")
    assert store.checkpoints() == ["step-000002", "step-000006"]
    assert (store.evaluation.base.loss, store.evaluation.tuned.loss) == (5.0, 2.0)
    assert [event.removed for event in events if isinstance(event, CheckpointEvent)] == [[], [], ["step-000004"]]


def test_early_stopping_ends_the_run_after_so_many_checkpoints_without_a_fall(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 2.0, 1.99, 1.98])
    monkeypatch.setattr("codetune_trainer.train.scoring.evaluating.mean_loss", lambda *_: next(losses))
    stopping = EarlyStopping(patience=2, min_delta=0.1)
    config = store.config(training={"max_steps": 20, "early_stopping": stopping})
    events = store.train(config)
    result = store.result
    assert result.steps == 6
    assert result.best_checkpoint == "step-000006"  # lower is better, however little
    assert [(event.step, event.total) for event in events if isinstance(event, ProgressEvent)][-1] == (6, 6)
    store.train(config)
    assert store.result.steps == 6


def test_without_held_out_files_the_latest_checkpoint_is_the_best(store: "Store") -> None:
    store.train(store.config(**store.add_dataset("all", ["value = 1\n" * 60])))
    result = store.result
    assert store.result.evaluation is None
    assert result.best_checkpoint == result.latest_checkpoint == "step-000006"


def test_a_seed_gives_the_same_run_again_and_another_seed_another(store: "Store") -> None:
    for run, seed in (("one", 7), ("two", 7), ("three", 8)):
        store.train(store.config(run, training={"seed": seed}))
    assert store.losses("one") == store.losses("two")
    assert store.losses("one") != store.losses("three")


# The run looks at the signal before each piece of work: stages of the set-up, micro-batches, batches of held-out
# sequences. Places 2 to 13 are the base's evaluation, the first two steps, the first checkpoint and what comes next.
def test_wherever_it_is_stopped_a_run_goes_on_as_if_nothing_had_happened(store: "Store") -> None:
    store.train(store.config("whole"))
    whole = store.losses("whole")
    left = set()
    for looks in range(2, 16):
        run = f"cut{looks}"
        store.train(store.config(run), store.stop_after(looks))
        assert store.status == 143
        left.add(tuple(store.checkpoints(run)))
        store.train(store.config(run))
        assert store.status == 0
        assert store.losses(run) == pytest.approx(whole, abs=1e-6)
        assert _weights(store, run) == _weights(store, "whole")
        measured = [point.step for point in store.result.loss_history if point.holdout_loss is not None]
        assert measured == [2, 4, 6]
    # Before the first step, between two checkpoints, and while a checkpoint is measured.
    assert {(), ("step-000001",), ("step-000002",)} <= left


def _weights(store: "Store", run: str) -> str:
    folder = store.root / run / "checkpoints" / "step-000006"
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def test_a_finished_run_that_is_started_again_only_reports(store: "Store") -> None:
    store.train(store.config())
    first = store.result
    events = store.train(store.config())
    assert isinstance(next(event for event in events if isinstance(event, ResumedEvent)), ResumedEvent)
    second = store.result
    assert second.evaluation == first.evaluation
    assert second.model_dump(exclude={"checkpoints"}) == first.model_dump(exclude={"checkpoints"})
    assert [found.digest for found in second.checkpoints] == [found.digest for found in first.checkpoints]


def _cut_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _flip_state(folder: Path) -> None:
    path = folder / "state" / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(_cut_weights, "not those of its manifest", id="weights cut short"),
        pytest.param(_flip_state, "not those of its manifest", id="one bit of the state"),
        pytest.param(lambda folder: (folder / "adapter_config.json").unlink(), "not those of its", id="a file is gone"),
        pytest.param(lambda folder: shutil.rmtree(folder / "state"), "not those of its manifest", id="no state"),
        pytest.param(lambda folder: (folder / "MANIFEST.json").unlink(), "no readable manifest", id="no manifest"),
        pytest.param(lambda folder: (folder / "MANIFEST.json").write_text("{"), "no readable manifest", id="half one"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(store: "Store", damage: Any, said: str) -> None:
    store.train(store.config("whole"))
    whole = store.result
    store.train(store.config())
    damage(store.root / "run" / "checkpoints" / "step-000006")
    events = store.train(store.config())
    (resumed,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert resumed.step == 4
    assert "step-000006" in resumed.message
    assert said in resumed.message
    assert store.result.evaluation == whole.evaluation
    assert store.checkpoints() == ["step-000004", "step-000006"]


def test_with_only_damaged_checkpoints_a_run_starts_anew_and_says_so(store: "Store") -> None:
    store.train(store.config(checkpoints=Checkpoints(every_steps=6, keep=1)))
    _cut_weights(store.root / "run" / "checkpoints" / "step-000006")
    events = store.train(store.config(checkpoints=Checkpoints(every_steps=6, keep=1)))
    (resumed,) = [event for event in events if isinstance(event, ResumedEvent)]
    assert (resumed.checkpoint, resumed.step) == ("", 0)
    assert "step-000006 was removed" in resumed.message
    assert store.result.steps == 6


def test_a_lost_best_checkpoint_is_replaced_by_the_best_that_is_left(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("codetune_trainer.train.scoring.evaluating.mean_loss", lambda *_: next(losses))
    store.train(store.config(checkpoints=Checkpoints(every_steps=2, keep=3)))
    _cut_weights(store.root / "run" / "checkpoints" / "step-000002")
    store.train(store.config(checkpoints=Checkpoints(every_steps=2, keep=3)))
    result = store.result
    assert (result.best_checkpoint, store.evaluation.tuned.loss) == ("step-000004", 3.0)


def test_what_a_killed_attempt_left_half_written_is_removed(store: "Store") -> None:
    folder = store.root / "run" / "checkpoints"
    for name in (".step-000002.part", ".step-000001.gone"):
        (folder / name).mkdir(parents=True)
        (folder / name / "adapter_model.safetensors").write_text("half")
    store.train(store.config())
    assert store.checkpoints() == ["step-000004", "step-000006"]


def test_a_checkpoint_of_another_shape_is_refused(store: "Store") -> None:
    store.train(store.config())
    other = store.config().lora.model_copy(update={"rank": 8})
    with pytest.raises(IncompatibleCheckpoint, match="rank 4 instead of 8"):
        store.train(store.config(lora=other))


def test_the_order_of_data_and_the_losses_do_not_depend_on_the_size_of_the_micro_batch(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = store.config().lora.model_copy(update={"dropout": 0.0})
    store.train(store.config("whole", lora=lora))
    monkeypatch.setattr("codetune_trainer.train.run._choose_micro_batch", lambda *_, **__: 1)
    store.train(store.config("split", lora=lora))
    assert store.losses("split") == pytest.approx(store.losses("whole"), abs=1e-5)


def test_training_overrides_are_what_the_result_says(store: "Store") -> None:
    config = store.config()
    store.train(config)
    parameters = store.result.parameters
    assert isinstance(config.training, TrainingOverrides)
    assert (parameters.max_steps, parameters.batch_tokens, parameters.rank) == (6, 256, 4)
    assert parameters.target_modules == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


def test_the_time_to_the_first_step_is_said_and_written_down_once(store: "Store") -> None:
    lines: list[str] = []
    listen = store.said
    store.said = lambda: lines.append(listen()) or lines[-1]  # type: ignore[func-returns-value]
    store.train(store.config())
    said = [line for line in lines[-1].splitlines() if "first step" in line]
    rows = [json.loads(line) for line in (store.root / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "secondsToFirstStep" in row]
    assert len(said) == len(told) == 1
    assert told[0]["step"] == 1
    assert f"{told[0]['secondsToFirstStep']:g} s" in said[0]


def test_with_too_little_memory_activations_are_computed_twice_and_the_result_says_so(
    store: "Store", monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("codetune_trainer.train.machine.free_memory", lambda *_: 1)
        store.train(store.config(lora=store.config().lora.model_copy(update={"dropout": 0.0})))
    assert store.result.parameters.gradient_checkpointing
    store.train(store.config("whole", lora=store.config().lora.model_copy(update={"dropout": 0.0})))
    assert not store.result.parameters.gradient_checkpointing
    assert store.losses() == pytest.approx(store.losses("whole"), abs=1e-4)
