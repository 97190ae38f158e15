"""Where things lie in a namespace's artifact store; all paths are relative to its root.

In a bucket every key begins with `<namespace>/`, so that one policy can say what is whose: a path that does not (a
model of the hub) has the namespace put before it.
"""

from codetune_api.metadata import ARTIFACTS_CLAIM

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What a PEFT adapter consists of; nothing else is ever loaded."""

MANIFEST = "MANIFEST.json"

TRAIN_LOG = "train.log"
"""What a run has printed, in its folder: all attempts, one after the other."""


def project_folder(namespace: str, name: str) -> str:
    """Everything of a Project."""
    return f"{namespace}/projects/{name}"


def sources_folder(namespace: str, name: str) -> str:
    """What a Project fetched, kept for the next sync."""
    return f"{project_folder(namespace, name)}/sources"


def uploads_folder(namespace: str, name: str) -> str:
    """What people sent for a Project: one folder per upload source."""
    return f"{project_folder(namespace, name)}/uploads"


def upload_folder(namespace: str, project: str, source: str) -> str:
    """One upload source: `CURRENT.json`, `trees/`, `blobs/`, `sessions/`."""
    return f"{uploads_folder(namespace, project)}/{source}"


def dataset_folder(namespace: str, project: str, revision: str) -> str:
    """One dataset: `manifest.json`, `files.jsonl`, `report.jsonl`."""
    return f"{project_folder(namespace, project)}/{revision.removeprefix('sha256:')}"


def finetune_folder(namespace: str, name: str, uid: str) -> str:
    """Everything of one FineTune object; a new object of the same name gets a new one."""
    return f"{namespace}/finetunes/{name}/{uid}"


def checkpoint_name(step: int) -> str:
    """The name by which people and resources speak of a checkpoint."""
    return f"step-{step:06d}"


def checkpoint_order(name: str) -> tuple[int, str]:
    """Puts names of checkpoints in the order of their steps: a step of more than six digits makes a longer name."""
    return len(name), name


def checkpoint_folder(run: str, name: str) -> str:
    """One checkpoint, below the run's folder."""
    return f"{run}/checkpoints/{name}"


def run_folder(checkpoint: str) -> str:
    """The run's folder that a checkpoint's folder is in."""
    return checkpoint.rsplit("/", 2)[0]


def merged_folder(run: str, checkpoint: str) -> str:
    """The base model with a checkpoint's adapter merged into it, below the run's folder."""
    return f"{run}/merged/{checkpoint}"


def model_pin(run: str) -> str:
    """Which commit of its base model a run is made on, below the run's folder."""
    return f"{run}/base-model.json"


def model_folder(repository: str, commit: str) -> str:
    """A base model that was fetched from the hub."""
    return f"models/{repository}/{commit}"


CLAIM_URI = f"pvc://{ARTIFACTS_CLAIM}"
"""What the URIs of a store begin with that is a claim."""


def store_uri(path: str, base: str = CLAIM_URI) -> str:
    """The URI of a path in the store, as it stands in status; `base` is the store's own, `s3://bucket/prefix` too."""
    return f"{base}/{path}"


def store_path(uri: str, base: str = CLAIM_URI) -> str | None:
    """The path below the store's root that a URI names; None when it names something else."""
    prefix = store_uri("", base)
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None
