"""A run that begins with the adapter of another FineTune instead of a fresh one.

The adapter is taken over into the run's own folder before anything else, so that every attempt begins with the same
one, whatever becomes of the other FineTune. Only weights are taken: steps, optimizer and data begin anew.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from codetune_api.artifacts import ADAPTER_FILES, MANIFEST, run_folder
from codetune_api.contracts import CheckpointManifest, StartAdapter, TrainConfig
from codetune_api.finetune import LoraOverrides
from pydantic import ValidationError

from codetune_trainer.architectures import EMBEDDINGS
from codetune_trainer.config import inside
from codetune_trainer.errors import IncompatibleCheckpoint
from codetune_trainer.manifests import is_intact, sync_folder
from codetune_trainer.train import checkpoints
from codetune_trainer.train.names import START, TRAINED
from codetune_trainer.train.running import Run

_ADAPTER_CONFIG, _ = ADAPTER_FILES
_CURE = "Make a new FineTune that resumes from a checkpoint which is there, or without resumeFrom."


def bring(config: TrainConfig, store: Path, folder: Path) -> None:
    """Have the adapter that the run begins with in its folder, proven. Raises: IncompatibleCheckpoint, OSError."""
    start = config.start
    if start is None or (folder / START).is_dir():
        return
    source = inside(store, start.path, "start.path")
    manifest = _read_manifest(source, start)
    # A name of its own: the processes of a distributed run may all do this at once.
    beside = Path(tempfile.mkdtemp(prefix=f".{START}.", dir=folder))
    try:
        for name in ADAPTER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, beside / name)
        if manifest.digest() != start.digest or not is_intact(beside, manifest.adapter):
            text = f"The files of {_name(start)} are not those that its digest {start.digest} stands for."
            raise IncompatibleCheckpoint(text, _CURE)
        seen = inside(store, run_folder(start.path), "start.path") / TRAINED
        if seen.is_file():  # older runs have none
            shutil.copyfile(seen, beside / TRAINED)
        sync_folder(beside)
        _settle(beside, folder / START)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _settle(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was first
            raise
    target.chmod(0o755)  # what mkdtemp makes is for one user alone


def take_over(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with the shape of the adapter that the run begins with. Raises: IncompatibleCheckpoint."""
    start = config.start
    if start is None:
        return config
    adapter = json.loads((folder / START / _ADAPTER_CONFIG).read_bytes())
    shape = read_shape(adapter)
    asked = config.lora.model_dump(exclude_none=True)
    wrong = [
        f"{name} {_say(adapter_value)} instead of {_say(asked[field])}"
        for field, (name, adapter_value) in _describe(shape).items()
        if asked.get(field) not in (None, []) and _say(asked[field]) != _say(adapter_value)
    ]
    if wrong:
        text = f"{_name(start)} was made with {', '.join(wrong)}, which lora asks for."
        names = "rank, alpha, targetModules, trainEmbeddings and rsLora"
        hint = f"Make a new FineTune whose lora leaves out {names}: they are taken over."
        raise IncompatibleCheckpoint(text, hint)
    return config.model_copy(update={"lora": config.lora.model_copy(update=shape)})


def read_shape(adapter: dict[str, Any]) -> dict[str, Any]:
    """The fields of `lora` that an adapter in PEFT's format stands for."""
    modules = set(adapter["target_modules"])
    return {
        "rank": adapter["r"],
        "alpha": float(adapter["lora_alpha"]),
        "target_modules": sorted(modules - set(EMBEDDINGS)),
        "train_embeddings": modules >= set(EMBEDDINGS),
        "rs_lora": bool(adapter.get("use_rslora")),
    }


def describe_start(config: TrainConfig) -> list[str]:
    """What `status.parameters.notes` says of it."""
    return [f"The adapter begins as {_name(config.start)}."] if config.start is not None else []


def load(run: Run) -> None:
    """Give the fresh adapter the weights that the run begins with."""
    if run.config.start is None:
        return
    checkpoints.load_adapter(run.folder / START, run.model)
    run.reporter.stage("LoadingModel", f"Starting from {_name(run.config.start)}")


def _read_manifest(source: Path, start: StartAdapter) -> CheckpointManifest:
    try:
        return CheckpointManifest.model_validate_json((source / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise IncompatibleCheckpoint(f"{_name(start)} is not in the store any more.", _CURE) from error


def _name(start: StartAdapter) -> str:
    return f"{start.checkpoint} of FineTune {start.fine_tune}"


def _describe(shape: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Field → the name that people write, and the value."""
    names = {field: info.alias or field for field, info in LoraOverrides.model_fields.items()}
    return {field: (names[field], value) for field, value in shape.items()}


def _say(value: Any) -> str:
    return (
        "+".join(sorted(value)) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)
    )
