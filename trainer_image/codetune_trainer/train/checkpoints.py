"""Checkpoints: PEFT's own adapter files, the state that a resume needs, and a manifest that is written last.

A checkpoint is written beside and renamed, so a half-written one is never seen; state is safetensors and JSON, no
pickle.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from codetune_api.artifacts import ADAPTER_FILES, MANIFEST, checkpoint_name
from codetune_api.contracts import CheckpointManifest
from codetune_api.finetune import CheckpointStatus
from peft import set_peft_model_state_dict
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from codetune_trainer.manifests import describe_file, describe_folder, is_intact, sync_folder
from codetune_trainer.train.feeding import Position
from codetune_trainer.train.modelling import Model


@dataclass(frozen=True)
class Identity:
    """What must be equal for a checkpoint to be of this run."""

    base_model: str
    rank: int
    dataset_revision: str


@dataclass
class State:
    """What a run knows besides its weights."""

    step: int = 0
    tokens: int = 0
    epoch: int = 0
    sequence: int = 0
    base_loss: float | None = None
    base_exact: float | None = None
    best_loss: float | None = None
    best_checkpoint: str = ""
    stale: int = 0
    """Checkpoints since the best one."""
    history: list[tuple[int, float, float | None]] | None = None

    @property
    def position(self) -> Position:
        """Where in the data the run is."""
        return Position(self.epoch, self.sequence)


def save(
    folder: Path,
    model: Model,
    optimizer: torch.optim.Optimizer,
    state: State,
    identity: Identity,
    losses: tuple[float | None, float | None],
) -> CheckpointManifest:
    """Write a checkpoint below `folder`; returns its manifest."""
    name = checkpoint_name(state.step)
    beside = folder / f".{name}.part"
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "state").mkdir(parents=True)
    model.save_pretrained(beside, safe_serialization=True)
    (beside / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    save_file(_state_tensors(optimizer), beside / "state" / "state.safetensors")
    (beside / "state" / "state.json").write_text(json.dumps(asdict(state)))
    manifest = CheckpointManifest(
        name=name,
        step=state.step,
        loss=losses[0],
        holdout_loss=losses[1],
        base_model=identity.base_model,
        rank=identity.rank,
        dataset_revision=identity.dataset_revision,
        created_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        adapter={file: describe_file(beside / file) for file in ADAPTER_FILES},
        state={f"state/{file}": entry for file, entry in describe_folder(beside / "state").items()},
    )
    (beside / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, exclude_none=True))
    sync_folder(beside)
    shutil.rmtree(folder / name, ignore_errors=True)
    beside.rename(folder / name)
    sync_folder(folder / name)
    return manifest


def _state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["rng.cuda"] = torch.cuda.get_rng_state()
    for index, entry in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{index}.{key}": torch.as_tensor(value).contiguous() for key, value in entry.items()}
    return found


def restore(folder: Path, model: Model, optimizer: torch.optim.Optimizer) -> State:
    """Take weights, optimizer, random state and position from a checkpoint."""
    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    tensors = load_file(folder / "state" / "state.safetensors")
    torch.set_rng_state(tensors.pop("rng.cpu"))
    cuda = tensors.pop("rng.cuda", None)
    if cuda is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(cuda)
    entries: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        _, index, key = name.split(".", 2)
        entries.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return State(**json.loads((folder / "state" / "state.json").read_text()))


def whole_checkpoints(folder: Path, identity: Identity) -> Iterator[tuple[Path, CheckpointManifest | str]]:
    """Checkpoints from the newest on: the manifest of a usable one, or why it is not."""
    for path in sorted(folder.glob("step-*"), key=lambda found: found.name, reverse=True):
        try:
            manifest = CheckpointManifest.model_validate_json((path / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            yield path, "it has no readable manifest"
            continue
        if Identity(manifest.base_model, manifest.rank, manifest.dataset_revision) != identity:
            yield path, "it is of another base model, rank or dataset"
        elif not is_intact(path, {**manifest.adapter, **manifest.state}):
            yield path, "its files are not those of its manifest"
        else:
            yield path, manifest


def prune(folder: Path, keep: int, best: str) -> list[str]:
    """Remove all but the newest `keep` checkpoints and the best one; returns the names of those removed."""
    names = sorted((path.name for path in folder.glob("step-*")), reverse=True)
    removed = [name for name in names[keep:] if name != best]
    for name in removed:
        shutil.rmtree(folder / name)
    return removed


def describe(manifest: CheckpointManifest, uri: str) -> CheckpointStatus:
    """A checkpoint as it stands in status."""
    return CheckpointStatus(
        name=manifest.name,
        step=manifest.step,
        loss=manifest.loss,
        holdout_loss=manifest.holdout_loss,
        uri=uri,
        digest=manifest.digest(),
        bytes=sum(entry.bytes for entry in (*manifest.adapter.values(), *manifest.state.values())),
        created_at=manifest.created_at,
    )
