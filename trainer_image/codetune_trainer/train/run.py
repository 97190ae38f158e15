"""`python -m codetune_trainer train`: the recipe, to be read from top to bottom."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from codetune_api.artifacts import store_uri
from codetune_api.contracts import ENV_MODEL, DatasetFile, TrainConfig
from codetune_api.finetune import DatasetStatus, Parameters
from codetune_api.presets import BETAS, Facts, InvalidParametersError, choose_length, resolve
from codetune_api.protocol import DatasetEvent, ParametersEvent, ResultEvent
from codetune_bucket.mirroring import Mirror
from transformers.utils import logging as transformers_logging

from codetune_trainer.architectures import EMBEDDINGS, check_embeddings, explain_no_embeddings, load_model_config
from codetune_trainer.config import inside, load_places
from codetune_trainer.errors import EXIT_STOPPED, InvalidParameters, ModelNotFound
from codetune_trainer.reporting import Reporter, Silence
from codetune_trainer.train import heritage, machine, starting, storing
from codetune_trainer.train.concluding import conclude, score_base
from codetune_trainer.train.data.documents import find_origin, load_dataset
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.data.feeding import Corpus
from codetune_trainer.train.data.infilling import find_fim_tokens
from codetune_trainer.train.data.packing import count_pieces
from codetune_trainer.train.data.tokens import tokenize
from codetune_trainer.train.fitting import fit
from codetune_trainer.train.group import ALONE, Group, join, peer_errors
from codetune_trainer.train.kernels.installing import speed_up_base
from codetune_trainer.train.logbook import keeping_log
from codetune_trainer.train.model import modelling
from codetune_trainer.train.model.sharding import shard
from codetune_trainer.train.model.sizing import choose_size
from codetune_trainer.train.model.stepping import memory_errors
from codetune_trainer.train.model.targets import choose_targets, count_experts
from codetune_trainer.train.names import CONFIG, LOG
from codetune_trainer.train.pacing import SharedStopSignal, Stopped, StopSignal
from codetune_trainer.train.recovering import finish, marking
from codetune_trainer.train.recovery import out_of_memory
from codetune_trainer.train.resuming import resume
from codetune_trainer.train.running import Run
from codetune_trainer.train.scoring import evaluating


def main(config: TrainConfig) -> int:
    """Set up, train, evaluate, report; returns the exit status. Raises: TrainerError."""
    transformers_logging.disable_progress_bar()
    places = load_places()
    if places.model is None:
        raise ModelNotFound(f"The environment variable {ENV_MODEL} is not set.", "The operator sets it in every Job.")
    folder = inside(places.store, config.output, "output")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    group = join(config.device)
    stop = StopSignal() if group.size == 1 else SharedStopSignal(group)
    stop.listen()
    with ExitStack() as keeping:
        if group.leads:
            keeping.enter_context(storing.keeping_last_words(config.output, places.mirror))
            keeping.enter_context(keeping_log(folder / LOG))
        starting.bring(config, places.store, folder)
        if group.leads:
            storing.keep_start(config, places.mirror)
        dataset = inside(places.store, config.dataset, "dataset")
        return train(config, dataset, places.model, folder, stop, group, places.mirror)


def train(
    config: TrainConfig,
    dataset: Path,
    model: Path,
    folder: Path,
    stop: StopSignal,
    group: Group = ALONE,
    mirror: Mirror | None = None,
) -> int:
    """The recipe between a dataset folder and a run folder; returns the exit status. Raises: TrainerError."""
    reporter = Reporter(config.nonce) if group.leads else Silence()
    try:
        with memory_errors():
            run = set_up(config, dataset, model, folder, reporter, stop, group, mirror or Mirror(folder))
            with marking(run), peer_errors():
                resume(run)
                base = score_base(run)
                reporter.stage("Training")
                fit(run)
                result = conclude(run, base)
                finish(run)
    except Stopped as stopped:
        if group.leads:
            print(stopped, flush=True)
        group.agree(0)
        return EXIT_STOPPED
    except torch.OutOfMemoryError as error:
        raise out_of_memory(config.device) from error
    reporter.emit(ResultEvent(train=result))
    group.agree(0)  # nobody leaves before the result is told: a pod that is done is not started again
    return 0


def set_up(
    config: TrainConfig,
    dataset: Path,
    model_folder: Path,
    folder: Path,
    reporter: Reporter,
    stop: StopSignal,
    group: Group,
    mirror: Mirror,
) -> Run:
    """Everything before the first step; every problem with the inputs is said before any weight is loaded.

    Raises: TrainerError, Stopped.
    """
    device = machine.find_device(config.device, group.local_size)
    machine.keep_freed_memory()
    torch.set_num_threads(max(1, machine.count_threads() // group.local_size))
    model_config = load_model_config(model_folder, config.base_model)
    config = starting.take_over(config, folder)
    check_embeddings(model_config, config.base_model, asked=bool(config.lora.train_embeddings))
    encoder = build_encoder(modelling.load_tokenizer(model_folder, config.base_model))
    reporter.stage("Tokenizing")
    before = heritage.find(config, folder)
    files, provenance = heritage.leave_out(load_dataset(dataset, config.dataset_revision), before)
    with group.leader_first():
        found = tokenize([file.text for file in files.train], encoder, dataset, config.dataset_revision)
    plain = [[*tokens, encoder.end] for tokens in found]
    stop.check()
    parameters = _resolve(config, encoder, model_config, [len(tokens) for tokens in plain], device, group, provenance)
    corpus = _build_corpus(files.train, plain, encoder, parameters, model_config)
    samples = _prepare(files.holdout, encoder, corpus, parameters, config)
    if group.leads:
        uri = store_uri(config.dataset, mirror.uri)
        found_data = DatasetStatus(
            revision=config.dataset_revision,
            files=len(corpus.texts),
            tokens=corpus.tokens,
            uri=uri,
            sources=files.sources,
        )
        heritage.keep(config, folder, heritage.add(before, files.digests), mirror)
        _announce(config, parameters, found_data, reporter, folder)
    model = _build_model(config, parameters, model_folder, device, group, shared=corpus.shared)
    stop.check()
    optimizer = _build_optimizer(model, parameters)
    micro_batch = _choose_micro_batch(model, parameters, device, group, shared=corpus.shared)
    recomputing = bool(model.get_base_model().is_gradient_checkpointing)
    parameters = parameters.model_copy(update={"gradient_checkpointing": recomputing})
    run = Run(
        config, parameters, encoder, model, optimizer, corpus, samples, folder, reporter, stop, micro_batch, group
    )  # fmt: skip
    run.mirror, run.provenance = mirror, provenance
    return run


def _build_model(
    config: TrainConfig, parameters: Parameters, folder: Path, device: torch.device, group: Group, *, shared: bool
) -> modelling.Model:
    """The base model with a fresh adapter, the same in every process. Raises: TrainerError."""
    torch.manual_seed(parameters.seed)
    place = torch.device("cpu") if parameters.sharded else device
    quantized = parameters.quantization == "Nf4"
    model = modelling.load_base(folder, config.base_model, parameters.precision, place, quantized=quantized)
    if device.type == "cpu":
        speed_up_base(model, shared=shared)
    model = modelling.add_adapter(model, parameters, config.base_model)
    if parameters.sharded:
        shard(model, device, group)
    for weight in modelling.trainable_weights(model):
        group.spread(weight.data)
    return model


def _build_corpus(
    files: Sequence[DatasetFile], plain: list[list[int]], encoder: Encoder, parameters: Parameters, model_config: Any
) -> Corpus:
    return Corpus(
        texts=[file.text for file in files],
        plain=plain,
        encoder=encoder,
        length=parameters.sequence_length,
        fim=find_fim_tokens(encoder.tokenizer),
        fim_rate=parameters.fim_rate,
        seed=parameters.seed,
        shared=modelling.can_share_sequences(model_config, parameters.sequence_length),
        origins=[find_origin(file) for file in files],
    )


def _prepare(
    files: Sequence[DatasetFile], encoder: Encoder, corpus: Corpus, parameters: Parameters, config: TrainConfig
) -> evaluating.Samples | None:
    return evaluating.prepare(
        files,
        encoder,
        corpus.length,
        config.device,
        shared=corpus.shared,
        fim=corpus.fim,
        questions=evaluating.count_questions(parameters, config.device, middles=corpus.fim is not None),
    )


def _resolve(
    config: TrainConfig,
    encoder: Encoder,
    model: Any,
    sizes: Sequence[int],
    device: torch.device,
    group: Group,
    provenance: str,
) -> Parameters:
    """The parameters of a run on documents of so many tokens. Raises: InvalidParameters."""
    no_embeddings = explain_no_embeddings(model, config.base_model)
    fim, targets = find_fim_tokens(encoder.tokenizer), choose_targets(model, config.base_model)
    free = machine.free_memory(device) if device.type == "cuda" and group.size > 1 else None
    facts = Facts(
        dataset_tokens=sum(sizes),
        has_fim=fim is not None,
        fim_format=fim.family.name if fim is not None else "",
        device=config.device,
        has_bf16=machine.has_fast_bf16(device),
        max_positions=getattr(model.get_text_config(), "max_position_embeddings", None) or 2**31,
        linear_modules=targets.modules,
        embeddings=() if no_embeddings else EMBEDDINGS,
        no_embeddings=no_embeddings,
        experts=count_experts(model),
        notes=[*targets.notes, *starting.describe_start(config), *filter(None, [provenance])],
        processes=group.size,
        weights=modelling.count_weights(model) if group.size > 1 else 0,
        free_bytes=None if free is None else -group.agree(-free),
    )
    try:
        length = choose_length(config.training.sequence_length, facts)
        if not modelling.can_share_sequences(model, length):
            facts = replace(facts, sequences=count_pieces(sizes, length, encoder.begin))
        return resolve(config.preset, config.lora, config.training, config.checkpoints, facts)
    except InvalidParametersError as error:
        raise InvalidParameters(f"{error}.", "Make a new FineTune with other parameters.") from error


def _announce(
    config: TrainConfig, parameters: Parameters, dataset: DatasetStatus, reporter: Reporter, folder: Path
) -> None:
    """Say and write down what is going to be done."""
    told = config.model_dump_json(by_alias=True, exclude={"nonce"}, exclude_none=True)
    (folder / CONFIG).write_text(told, encoding="utf-8")
    reporter.emit(ParametersEvent(parameters=parameters))
    reporter.emit(DatasetEvent(dataset=dataset))
    reporter.stage("LoadingModel")


def _build_optimizer(model: modelling.Model, parameters: Parameters) -> torch.optim.Optimizer:
    """AdamW on the adapter alone; betas as in Refact's recipe."""
    return torch.optim.AdamW(
        modelling.trainable_weights(model),
        lr=parameters.learning_rate,
        betas=BETAS,
        weight_decay=parameters.weight_decay,
        fused=True,
    )


def _choose_micro_batch(
    model: modelling.Model, parameters: Parameters, device: torch.device, group: Group, *, shared: bool
) -> int:
    """Sequences at once, as measured; with activations computed twice when not even one fits otherwise.

    What fits in every process is what all of them do.
    """
    sizing = choose_size(model, parameters, machine.free_memory(device), group.size, shared=shared)
    if group.agree(sizing.checkpointing) and not parameters.gradient_checkpointing:
        modelling.enable_checkpointing(model)
    return -group.agree(-sizing.rows)
