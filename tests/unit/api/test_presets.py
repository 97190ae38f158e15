"""Presets: which parameters a run gets, and what is said when it can't have those that were asked for."""

from dataclasses import replace
from typing import Any

import pytest
from codetune_api.finetune import Checkpoints, LoraOverrides, Parameters, Preset, TrainingOverrides
from codetune_api.presets import Facts, InvalidParametersError, choose_preset, resolve

GPU = Facts(
    dataset_tokens=10_000_000,
    has_fim=True,
    device="cuda",
    has_bf16=True,
    max_positions=8192,
    linear_modules=("q_proj", "down_proj"),
)
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
        pytest.param("train_embeddings", False, get(GPU, "Embeddings"), id="no-embeddings-that-vllm-can't-serve"),
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
        pytest.param("vLLM serves no adapter", GPU, {"lora": {"train_embeddings": True}}, id="embeddings"),
    ],
)
def test_what_can_not_be_trained_is_refused(sentence: str, facts: Facts, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParametersError, match=sentence):
        get(facts, **options)


def test_what_was_adapted_is_said() -> None:
    assert "fimRate 0.5 became 0" in get(CPU, training={"fim_rate": 0.5}).notes[0]
    assert "Embeddings are not trained" in get(GPU, "Embeddings").notes[0]
