"""Presets: which parameters a run gets, and what is said when it can't have those that were asked for."""

from dataclasses import replace
from typing import Any

import pytest
from codetune_api.finetune import Checkpoints, EarlyStopping, LoraOverrides, Parameters, Preset, TrainingOverrides
from codetune_api.presets import Facts, InvalidParametersError, choose_preset, resolve

GPU = Facts(
    dataset_tokens=10_000_000,
    has_fim=True,
    device="cuda",
    has_bf16=True,
    max_positions=8192,
    linear_modules=("q_proj", "down_proj"),
    no_embeddings="it is a foo",
)
SERVED = replace(GPU, embeddings=("embed", "head"), no_embeddings="")
"""With a model on whose embeddings an adapter can go."""
CPU = replace(GPU, dataset_tokens=160_000, has_fim=False, device="cpu", max_positions=2048)


def get(
    facts: Facts, preset: Preset = "Auto", lora: Any = None, training: Any = None, every: int | None = None
) -> Parameters:
    overrides = LoraOverrides(**(lora or {})), TrainingOverrides(**(training or {}))
    return resolve(preset, *overrides, Checkpoints(every_steps=every), facts)


@pytest.mark.parametrize(
    ("expected", "tokens"),
    [
        pytest.param("Smaller", 1_999_999, id="small"),
        pytest.param("Standard", 2_000_000, id="middle"),
        pytest.param("Embeddings", 50_000_000, id="large"),
    ],
)
def test_auto_goes_by_the_size_of_the_dataset(expected: str, tokens: int) -> None:
    assert choose_preset(tokens) == expected


@pytest.mark.parametrize(
    ("field", "expected", "found"),
    [
        pytest.param("rank", 32, get(GPU), id="rank-of-the-preset"),
        pytest.param("rank", 16, get(GPU, "Smaller"), id="preset-that-was-asked-for"),
        pytest.param("alpha", 16, get(GPU, lora={"rank": 8}), id="alpha-follows-the-rank"),
        pytest.param("alpha", 5, get(GPU, lora={"rank": 8, "alpha": 5}), id="alpha-that-was-asked-for"),
        pytest.param("sequence_length", 2048, get(GPU), id="length-on-a-gpu"),
        pytest.param("sequence_length", 512, get(CPU), id="length-on-a-cpu"),
        pytest.param("sequence_length", 256, get(replace(CPU, max_positions=256)), id="length-of-a-small-model"),
        pytest.param("batch_tokens", 128 * 2048, get(GPU), id="batch-on-a-gpu"),
        pytest.param("batch_tokens", 8 * 512, get(CPU), id="batch-on-a-cpu"),
        pytest.param("batch_tokens", 1024, get(CPU, training={"batch_tokens": 600}), id="batch-rounded-up"),
        pytest.param("max_steps", 7, get(GPU, training={"max_steps": 7, "epochs": 3}), id="steps-win-over-epochs"),
        pytest.param("max_steps", 79, get(CPU, training={"epochs": 2}), id="steps-from-epochs"),
        pytest.param("max_steps", 50, get(replace(CPU, dataset_tokens=400)), id="at-least-fifty-steps"),
        pytest.param("every_steps", 5, get(GPU, training={"max_steps": 50}), id="ten-checkpoints"),
        pytest.param("every_steps", 4, get(GPU, training={"max_steps": 4}, every=100), id="at-the-end-at-the-latest"),
        pytest.param(
            "warmup_steps", 4, get(GPU, training={"max_steps": 4, "warmup_steps": 9}), id="warm-up-within-run"
        ),
        pytest.param("fim_rate", 0.9, get(GPU), id="infilling-where-the-model-can"),
        pytest.param("fim_rate", 0, get(CPU, training={"fim_rate": 0.5}), id="no-infilling-where-it-can't"),
        pytest.param("precision", "BFloat16", get(GPU), id="bf16-where-the-hardware-has-it"),
        pytest.param("precision", "Float32", get(replace(GPU, has_bf16=False)), id="fp32-otherwise"),
        pytest.param("target_modules", ["down_proj", "q_proj"], get(GPU), id="all-linear-layers"),
        pytest.param(
            "target_modules", ["q_proj"], get(GPU, lora={"target_modules": ["q_proj", "q_proj"]}), id="each-layer-once"
        ),
        pytest.param("alpha", 32, get(GPU, "Smaller"), id="alpha-of-the-preset"),
        pytest.param("alpha", 8, get(GPU, lora={"rank": 16, "rs_lora": True}), id="alpha-of-rank-stabilized-lora"),
        pytest.param("rs_lora", True, get(GPU, lora={"rs_lora": True}), id="rank-stabilized-lora"),
        pytest.param("fim_format", "Fam", get(replace(GPU, fim_format="Fam")), id="format-of-infilling"),
        pytest.param("fim_format", "", get(replace(CPU, fim_format="Fam")), id="no-format-without-the-tokens"),
        pytest.param("early_stopping", EarlyStopping(patience=2), get(GPU), id="a-fifth-of-ten-checkpoints"),
        pytest.param(
            "early_stopping",
            EarlyStopping(patience=20),
            get(GPU, training={"max_steps": 1000}, every=10),
            id="a-fifth-of-a-hundred-checkpoints",
        ),
        pytest.param(
            "early_stopping",
            EarlyStopping(patience=2),
            get(GPU, training={"max_steps": 1000}, every=1000),
            id="never-after-one-checkpoint",
        ),
        pytest.param(
            "early_stopping",
            EarlyStopping(patience=1000),
            get(GPU, training={"max_steps": 100_000}, every=10),
            id="no-more-than-the-API-takes",
        ),
        pytest.param(
            "early_stopping",
            EarlyStopping(patience=7, min_delta=0.1),
            get(GPU, training={"early_stopping": EarlyStopping(patience=7, min_delta=0.1)}),
            id="patience-that-was-asked-for",
        ),
        pytest.param("train_embeddings", False, get(GPU, "Embeddings"), id="no-embeddings-that-vllm-can't-serve"),
        pytest.param("train_embeddings", True, get(SERVED, "Embeddings"), id="embeddings-of-the-preset"),
        pytest.param(
            "target_modules",
            ["down_proj", "embed", "head", "q_proj"],
            get(SERVED, "Embeddings"),
            id="embeddings-are-among-the-layers",
        ),
        pytest.param("train_embeddings", False, get(SERVED), id="no-embeddings-in-other-presets"),
        pytest.param("train_embeddings", True, get(SERVED, lora={"train_embeddings": True}), id="embeddings-asked-for"),
        pytest.param(
            "train_embeddings",
            False,
            get(SERVED, "Embeddings", lora={"train_embeddings": False}),
            id="embeddings-not-wanted",
        ),
        pytest.param(
            "target_modules",
            ["q_proj"],
            get(SERVED, "Embeddings", lora={"target_modules": ["q_proj"]}),
            id="layers-that-were-chosen-are-all",
        ),
    ],
)
def test_a_parameter_is(field: str, expected: Any, found: Parameters) -> None:
    assert getattr(found, field) == expected


@pytest.mark.parametrize(
    ("sentence", "facts", "options"),
    [
        pytest.param("takes at most 2048", CPU, {"training": {"sequence_length": 4096}}, id="too-long"),
        pytest.param("does not have", GPU, {"lora": {"target_modules": ["nope"]}}, id="unknown-module"),
        pytest.param("needs a GPU", CPU, {"training": {"precision": "Float16"}}, id="fp16-on-a-cpu"),
        pytest.param(
            "lora.trainEmbeddings is true, but it is a foo: remove it",
            GPU,
            {"lora": {"train_embeddings": True}},
            id="embeddings",
        ),
        pytest.param("vLLM serves no DoRA", GPU, {"lora": {"dora": True}}, id="dora"),
        pytest.param("choose from down_proj, q_proj", GPU, {"lora": {"target_modules": ["nope"]}}, id="what-there-is"),
    ],
)
def test_what_can_not_be_trained_is_refused(sentence: str, facts: Facts, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParametersError, match=sentence):
        get(facts, **options)


def test_what_was_adapted_is_said() -> None:
    assert "fimRate 0.5 became 0" in get(CPU, training={"fim_rate": 0.5}).notes[0]
    assert "Embeddings are not trained: it is a foo." in get(GPU, "Embeddings").notes[0]
    assert "experts" in get(replace(GPU, notes=("The experts stay.",))).notes[0]


# The table that the defaults come from, for 128 sequences of 2048 tokens a step.
@pytest.mark.parametrize(
    ("epochs", "packed"),
    [
        pytest.param(50, 999, id="under-1000-sequences"),
        pytest.param(35, 1_000, id="1000-sequences"),
        pytest.param(35, 4_999, id="under-5000"),
        pytest.param(20, 5_000, id="5000"),
        pytest.param(20, 14_999, id="under-15000"),
        pytest.param(10, 15_000, id="15000"),
        pytest.param(10, 29_999, id="under-30000"),
        pytest.param(3, 30_000, id="30000"),
        pytest.param(3, 1_000_000, id="very-large"),
    ],
)
def test_epochs_go_by_the_packed_sequences_of_one(epochs: int, packed: int) -> None:
    found = get(replace(GPU, dataset_tokens=packed * 2048))
    sequences = found.batch_tokens // found.sequence_length
    assert found.max_steps == max(50, -(-epochs * packed // sequences))
    assert found.epochs == pytest.approx(found.max_steps * sequences / packed, rel=1e-3)


ALONE = replace(GPU, dataset_tokens=400_000, sequences=2_000)
"""2,000 files of 200 tokens, each in a sequence of its own."""


@pytest.mark.parametrize(
    ("field", "expected", "training"),
    [
        pytest.param("batch_tokens", 128 * 2048, {}, id="no-smaller-batch"),
        pytest.param("max_steps", 547, {}, id="epochs-of-2000-sequences"),
        pytest.param("epochs", 35.008, {}, id="epochs-as-they-are"),
        pytest.param("max_steps", 32, {"epochs": 2}, id="steps-from-epochs"),
        pytest.param("epochs", 0.064, {"max_steps": 1}, id="epochs-from-steps"),
    ],
)
def test_documents_that_share_no_sequence_take_one_each(field: str, expected: float, training: Any) -> None:
    assert getattr(get(ALONE, training=training), field) == expected


@pytest.mark.parametrize(
    ("preset", "rank", "alpha"),
    [
        pytest.param("Smaller", 16, 32, id="smaller"),
        pytest.param("Standard", 32, 64, id="standard"),
        pytest.param("Embeddings", 64, 128, id="embeddings"),
    ],
)
def test_a_preset_is(preset: Preset, rank: int, alpha: float) -> None:
    found = get(GPU, preset)
    assert (found.preset, found.rank, found.alpha) == (preset, rank, alpha)
    assert (found.learning_rate, found.batch_tokens, found.sequence_length) == (3e-4, 128 * 2048, 2048)
    assert (found.warmup_steps, found.weight_decay, found.dropout) == (20, 0.1, 0.01)
    assert (found.clip_norm, found.betas) == (0.5, [0.9, 0.95])


TWO = replace(GPU, processes=2, weights=30_000_000_000, free_bytes=80_000_000_000)


@pytest.mark.parametrize(
    ("expected", "facts", "training"),
    [
        pytest.param(False, TWO, {}, id="fits"),
        pytest.param(True, replace(TWO, free_bytes=74_000_000_000), {}, id="fills the GPU"),
        pytest.param(True, TWO, {"precision": "Float32"}, id="fills the GPU in single precision"),
        pytest.param(False, replace(TWO, free_bytes=1), {"sharding": "Off"}, id="fills the GPU, switched off"),
        pytest.param(True, TWO, {"sharding": "On"}, id="fits, asked for"),
        pytest.param(False, replace(TWO, free_bytes=1, processes=1), {}, id="nobody to share with"),
        pytest.param(False, replace(TWO, device="cpu", free_bytes=None), {}, id="CPU"),
    ],
)
def test_processes_share_the_weights_of_a_base_model_that_fills_a_gpu(
    expected: bool, facts: Facts, training: Any
) -> None:
    found = get(facts, training=training)
    assert found.sharded is expected
    assert found.gradient_checkpointing is expected
    assert any("spread over 2 processes" in note for note in found.notes) is expected


def test_sharing_weights_alone_is_refused() -> None:
    with pytest.raises(InvalidParametersError, match=r"training\.sharding is On.* resources\.gpus"):
        get(GPU, training={"sharding": "On"})


NF4 = {"quantization": "Nf4"}


def test_a_base_model_in_4_bits_is_not_spread_over_processes_and_said() -> None:
    found = get(replace(TWO, free_bytes=1), lora=NF4)
    assert (found.quantization, found.sharded) == ("Nf4", False)
    assert any("in 4 bits" in note for note in found.notes)
    assert get(replace(GPU, experts=1), lora=NF4).quantization == "Nf4"
    assert (get(GPU).quantization, get(GPU, lora={"quantization": "None"}).quantization) == ("None", "None")


@pytest.mark.parametrize(
    ("match", "facts", "training"),
    [
        pytest.param(r"needs a GPU: set resources\.gpus", CPU, {}, id="without a GPU"),
        pytest.param(r"training\.sharding is On", TWO, {"sharding": "On"}, id="and spread over processes"),
        pytest.param("the 8 experts .* would stay in 16 bits: remove it", replace(GPU, experts=8), {}, id="experts"),
    ],
)
def test_4_bits_are_refused(match: str, facts: Facts, training: Any) -> None:
    with pytest.raises(InvalidParametersError, match=match):
        get(facts, lora=NF4, training=training)


def test_processes_that_get_no_sequence_are_told() -> None:
    found = get(replace(GPU, processes=8), training={"batch_tokens": 4 * 2048})
    assert found.processes == 8
    assert any("4 sequences for 8 processes" in note for note in found.notes)
