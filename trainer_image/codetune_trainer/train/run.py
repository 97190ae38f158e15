"""`python -m codetune_trainer train`: the recipe, to be read from top to bottom."""

import os
from pathlib import Path
from typing import Any

import torch
from codetune_api.artifacts import checkpoint_folder, store_uri
from codetune_api.contracts import ENV_MODEL, CheckpointManifest, TrainConfig, TrainResult
from codetune_api.finetune import CheckpointStatus, DatasetStatus, EvaluationScores, LossPoint, Parameters
from codetune_api.presets import Facts, InvalidParametersError, resolve
from codetune_api.protocol import DatasetEvent, ParametersEvent, ResultEvent, ResumedEvent
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from codetune_trainer.config import load_config, load_places
from codetune_trainer.errors import InvalidParameters, ModelNotFound
from codetune_trainer.reporting import Reporter
from codetune_trainer.train import checkpoints, evaluating, modelling
from codetune_trainer.train.documents import Dataset, load_dataset
from codetune_trainer.train.feeding import Corpus
from codetune_trainer.train.fitting import Run, Stopped, fit, measure, out_of_memory
from codetune_trainer.train.infilling import find_fim_tokens
from codetune_trainer.train.pacing import StopSignal

CHART_POINTS = 100


EXIT_STOPPED = 143
"""Stopped by SIGTERM with a checkpoint written: the Job does not count it as a failure."""


def main() -> int:
    """Set up, train, evaluate, report; returns the exit status. Raises: TrainerError."""
    transformers_logging.disable_progress_bar()
    config = load_config(TrainConfig)
    reporter = Reporter(config.nonce)
    run, tokenizer = set_up(config, reporter, StopSignal())
    try:
        base = measure_base(run, tokenizer)
        reporter.stage("Training")
        fit(run)
        result = conclude(run, tokenizer, base)
    except Stopped as stopped:
        print(f"Stopped: {stopped}", flush=True)
        return EXIT_STOPPED
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(run.parameters.sequence_length, config.device) from error
    reporter.emit(ResultEvent(train=result))
    return 0


def set_up(config: TrainConfig, reporter: Reporter, stop: StopSignal) -> tuple[Run, Any]:
    """Everything before the first step, each problem with the inputs said before any weight is loaded."""
    if config.gpus > 1:
        text = f"resources.gpus is {config.gpus}, but this version trains on one GPU."
        raise InvalidParameters(text, "Set resources.gpus to 1.")
    device = torch.device(config.device)
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    places = load_places()
    store, model_folder = places.store, places.model
    if model_folder is None:
        raise ModelNotFound(f"The environment variable {ENV_MODEL} is not set.", "The operator sets it in every Job.")
    model_config = modelling.load_model_config(model_folder, config.base_model)
    tokenizer = modelling.load_tokenizer(model_folder, config.base_model)
    reporter.stage("Tokenizing")
    dataset = load_dataset(store / config.dataset, config.dataset_revision)
    plain = [[*tokens, tokenizer.eos_token_id] for tokens in _tokenize(tokenizer, dataset)]
    parameters = _resolve(config, tokenizer, model_config, model_folder, sum(map(len, plain)), device)
    reporter.emit(ParametersEvent(parameters=parameters))
    reporter.emit(DatasetEvent(dataset=_describe_dataset(config, dataset, plain)))
    torch.manual_seed(parameters.seed)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    corpus = Corpus(
        [file.text for file in dataset.train], plain, tokenizer, tokenizer.eos_token_id, padding,
        parameters.sequence_length, find_fim_tokens(tokenizer), parameters.fim_rate, parameters.seed,
    )  # fmt: skip
    held_out = evaluating.prepare(dataset.holdout, tokenizer, parameters.sequence_length, padding, config.device)
    reporter.stage("LoadingModel")
    base = modelling.load_base(model_folder, config.base_model, parameters.precision, device)
    model = modelling.add_adapter(base, parameters, config.base_model)
    folder = store / config.output
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(by_alias=True, exclude={"nonce"}, exclude_none=True))
    run = Run(
        config, parameters, model, _optimizer(model, parameters, device), corpus, held_out, folder, reporter, stop,
        checkpoints.State(), _micro_batch(parameters, device), [],
    )  # fmt: skip
    _resume(run)
    return run, tokenizer


def _tokenize(tokenizer: Any, dataset: Dataset) -> list[list[int]]:
    found: list[list[int]] = tokenizer([file.text for file in dataset.train], add_special_tokens=False)["input_ids"]
    return found


def _resolve(
    config: TrainConfig, tokenizer: Any, model_config: Any, folder: Path, tokens: int, device: torch.device
) -> Parameters:
    facts = Facts(
        dataset_tokens=tokens,
        has_fim=find_fim_tokens(tokenizer) is not None,
        device=config.device,
        has_bf16=modelling.has_fast_bf16(device),
        max_positions=getattr(model_config, "max_position_embeddings", None) or 2**31,
        linear_modules=modelling.linear_modules(folder, model_config),
    )
    try:
        return resolve(config.preset, config.lora, config.training, config.checkpoints, facts)
    except InvalidParametersError as error:
        raise InvalidParameters(str(error)) from error


def _describe_dataset(config: TrainConfig, dataset: Dataset, plain: list[list[int]]) -> DatasetStatus:
    return DatasetStatus(
        revision=config.dataset_revision,
        files=len(dataset.train),
        tokens=sum(map(len, plain)),
        uri=store_uri(config.dataset),
    )


def _optimizer(model: modelling.Model, parameters: Parameters, device: torch.device) -> torch.optim.Optimizer:
    """AdamW on the adapter alone; betas as in Refact's recipe."""
    trainable = [found for found in model.parameters() if found.requires_grad]
    return torch.optim.AdamW(
        trainable, lr=parameters.learning_rate, betas=(0.9, 0.95), weight_decay=parameters.weight_decay, fused=True
    )


def _micro_batch(parameters: Parameters, device: torch.device) -> int:
    """Sequences at once: enough to fill the device, few enough for its memory; the batch is cut evenly."""
    sequences = parameters.batch_tokens // parameters.sequence_length
    tokens = 4096 if device.type == "cpu" else 16_384
    most = max(1, min(sequences, tokens // parameters.sequence_length))
    return next(size for size in range(most, 0, -1) if sequences % size == 0)


def _resume(run: Run) -> None:
    """Go on from the newest whole checkpoint of this run, and say which were passed over and why."""
    skipped = []
    for path, found in checkpoints.whole_checkpoints(run.folder / "checkpoints", run.identity):
        if isinstance(found, str):
            skipped.append(f"{path.name} is not used: {found}")
            continue
        run.state = checkpoints.restore(path, run.model, run.optimizer)
        run.reporter.emit(ResumedEvent(checkpoint=found.name, step=found.step, message="; ".join(skipped)))
        break
    else:
        if skipped:
            run.reporter.stage("Training", "Started anew: " + "; ".join(skipped))
    run.saved = _list_saved(run)


def _list_saved(run: Run) -> list[CheckpointStatus]:
    manifests = [
        found
        for _, found in checkpoints.whole_checkpoints(run.folder / "checkpoints", run.identity)
        if isinstance(found, CheckpointManifest) and found.step <= run.state.step
    ]
    saved = [
        checkpoints.describe(found, store_uri(checkpoint_folder(run.config.output, found.name))) for found in manifests
    ]
    return saved[::-1]


def measure_base(run: Run, tokenizer: Any) -> EvaluationScores | None:
    """Scores of the base model, measured once: before step 1, with the adapter off."""
    if run.held_out is None:
        return None
    if run.state.base_loss is None:
        run.reporter.stage("Baseline", f"Measuring the base model on {run.held_out.tokens} held-out tokens")
        with run.model.disable_adapter():
            run.state.base_loss = measure(run)
            run.state.base_exact = evaluating.exact_match(run.model, tokenizer, run.held_out)
    return EvaluationScores(loss=run.state.base_loss or 0.0, exact_match=run.state.base_exact)


def conclude(run: Run, tokenizer: Any, base: EvaluationScores | None) -> TrainResult:
    """Score the best checkpoint against the base and gather what the run found out."""
    run.reporter.stage("Evaluating", f"Scoring {run.state.best_checkpoint}")
    latest = run.saved[-1].name
    best = run.state.best_checkpoint or latest
    evaluation = None
    if run.held_out is not None and base is not None:
        if best != f"step-{run.state.step:06d}":
            weights = load_file(run.folder / "checkpoints" / best / "adapter_model.safetensors")
            set_peft_model_state_dict(run.model, weights)
        exact = evaluating.exact_match(run.model, tokenizer, run.held_out)
        tuned = EvaluationScores(loss=run.state.best_loss or 0.0, exact_match=exact)
        evaluation = evaluating.compare(base, tuned, run.held_out)
    return TrainResult(
        steps=run.state.step,
        tokens=run.state.tokens,
        best_checkpoint=best,
        latest_checkpoint=latest,
        evaluation=evaluation,
        parameters=run.parameters,
        checkpoints=run.saved,
        loss_history=_chart(run.state.history or []),
    )


def _chart(history: list[tuple[int, float, float | None]]) -> list[LossPoint]:
    """At most 100 points over the whole run, the last one among them."""
    stride = -(-len(history) // CHART_POINTS) if history else 1
    chosen = history[::-1][::stride][::-1]
    return [LossPoint(step=step, loss=loss, holdout_loss=held_out) for step, loss, held_out in chosen]
