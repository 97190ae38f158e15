"""`python -m codetune_trainer merge`: write the base model with an adapter merged into it into the store.

PEFT does the merging, in the precision in which the base model's weights are stored. The manifest comes last, so a
folder that has one is whole. A run keeps one merged model at a time: it is as large as its base.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

from codetune_api.artifacts import ADAPTER_FILES, MANIFEST
from codetune_api.contracts import ENV_MODEL, CheckpointManifest, MergeConfig, MergedManifest
from codetune_bucket.mirroring import Mirror
from pydantic import ValidationError

from codetune_trainer.config import inside, load_config, load_places
from codetune_trainer.errors import DiskFull, IncompatibleCheckpoint, ModelNotFound, OutOfMemory, say_room
from codetune_trainer.manifests import describe_folder, is_intact, sync_folder
from codetune_trainer.purge import remove
from codetune_trainer.reporting import Reporter

SHARD_SIZE = "4GB"
"""Largest file of weights: a download that is cut loses none of it, but a digest is taken over all of it again."""
_KEPT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\.(json|txt|model|jinja|tiktoken)")
"""What a model's folder holds besides weights: tokenizer, templates, generation settings."""
_OWN = frozenset({"config.json", "model.safetensors.index.json"})
"""Written anew with the weights."""


def main() -> int:
    """Merge as the pod's configuration says; returns the exit code."""
    config = load_config(MergeConfig)
    places = load_places()
    if places.model is None:
        raise ModelNotFound(f"The environment variable {ENV_MODEL} is not set.", "The operator sets it in every Job.")
    merge(config, places.model, places.mirror, Reporter(config.nonce))
    return 0


def merge(config: MergeConfig, model: Path, mirror: Mirror, reporter: Reporter) -> Path:
    """Have the merged model in the store; returns its folder. Raises: TrainerError, BucketError, OSError."""
    folder = inside(mirror.root, config.output, "output")
    if _is_there(folder, config, mirror):
        return folder
    adapter = inside(mirror.root, config.adapter, "adapter")
    for name in (MANIFEST, *ADAPTER_FILES):
        mirror.pull_file(f"{config.adapter}/{name}")
    _check_adapter(adapter, config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for former in folder.parent.iterdir():
        remove(former)
    mirror.remove(str(Path(config.output).parent))
    _check_room(model, folder.parent)
    reporter.stage("Merging", f"{config.checkpoint} into {config.base_model}")
    beside = Path(tempfile.mkdtemp(prefix=f".{config.checkpoint}.", dir=folder.parent))
    beside.chmod(0o755)  # what mkdtemp makes is for one user alone
    try:
        _write(model, adapter, config.base_model, beside)
        manifest = MergedManifest(
            checkpoint=config.checkpoint,
            adapter_digest=config.digest,
            base_model=config.base_model,
            files=describe_folder(beside),
        )
        (beside / MANIFEST).write_text(manifest.model_dump_json(by_alias=True), encoding="utf-8")
        sync_folder(beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    reporter.stage("Saving", config.checkpoint)
    mirror.push(config.output, MANIFEST)
    return folder


def _is_there(folder: Path, config: MergeConfig, mirror: Mirror) -> bool:
    """Whether an earlier attempt made this very model."""
    mirror.pull_file(f"{config.output}/{MANIFEST}")
    try:
        manifest = MergedManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return False
    # What is in a bucket has been proven when it was put there, and need not come for this.
    return manifest.adapter_digest == config.digest and (mirror.is_remote or is_intact(folder, manifest.files))


def _check_adapter(adapter: Path, config: MergeConfig) -> None:
    """Raises: IncompatibleCheckpoint."""
    hint = "Choose a checkpoint that status.checkpoints names."
    try:
        manifest = CheckpointManifest.model_validate_json((adapter / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise IncompatibleCheckpoint(f"{config.checkpoint} is not in the store any more.", hint) from error
    if manifest.digest() != config.digest or not is_intact(adapter, manifest.adapter):
        text = f"The files of {config.checkpoint} are not those that its digest {config.digest} stands for."
        raise IncompatibleCheckpoint(text, hint)


def _check_room(model: Path, parent: Path) -> None:
    """Raises: DiskFull."""
    needed = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    free = shutil.disk_usage(parent).free
    if needed > free:
        room = f"{needed / 1e9:.1f} GB, and the artifact store has {free / 1e9:.1f} GB left"
        hint = say_room()
        raise DiskFull(f"The merged model needs {room}.", hint)


def _write(model: Path, adapter: Path, uri: str, target: Path) -> None:
    """Merged weights with their configuration, and everything else that the base model's folder has."""
    import torch
    from peft import PeftModel
    from transformers import GenerationConfig

    from codetune_trainer.architectures import EMBEDDINGS, load_model_config
    from codetune_trainer.train.model.modelling import load_base, untie_head

    load_model_config(model, uri)
    with tempfile.TemporaryDirectory() as alone:
        # Without the manifest and the state beside it, of which PEFT knows nothing.
        for name in ADAPTER_FILES:
            shutil.copyfile(adapter / name, Path(alone) / name)
        try:
            base = load_base(model, uri, "Auto", torch.device("cpu"))
            if set(EMBEDDINGS) & set(json.loads((adapter / "adapter_config.json").read_bytes())["target_modules"]):
                untie_head(base)  # each of the two has an update of its own
            merged = PeftModel.from_pretrained(base, alone).merge_and_unload()
        except (MemoryError, torch.OutOfMemoryError) as error:
            text = "The pod ran out of memory: it holds the whole base model."
            raise OutOfMemory(text, "Raise spec.resources.memory.") from error
        except (ValueError, RuntimeError) as error:
            text = f"The adapter does not go into {uri}: {error}"
            raise IncompatibleCheckpoint(
                text[:2000], "Its base model must be the one that it was trained on."
            ) from error
    # transformers does not write settings that it finds contradictory: the base's own are copied as they are, or none.
    merged.generation_config = GenerationConfig()
    merged.save_pretrained(target, safe_serialization=True, max_shard_size=SHARD_SIZE)
    (target / "generation_config.json").unlink(missing_ok=True)
    for path in sorted(model.iterdir()):
        if path.is_file() and _KEPT.fullmatch(path.name) and path.name not in _OWN:
            shutil.copyfile(path, target / path.name)
