"""What the parts hand to each other as JSON: run configurations, results, manifests, adapter sets.

Paths in here are relative to a root that the pod gets by environment variable, so that a configuration means the
same wherever its volumes are mounted.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from codetune_api.common import Failure
from codetune_api.digests import FileEntry, digest_files
from codetune_api.finetune import (
    Checkpoints,
    CheckpointStatus,
    Evaluation,
    LoraOverrides,
    LossPoint,
    Parameters,
    Preset,
    TrainingOverrides,
)
from codetune_api.model import ApiModel, Digest
from codetune_api.project import FileCounts, FileRules, FileType, Holdout, Rejection, Source, SourceStatus

ENV_CONFIG = "CODETUNE_CONFIG"
"""File with the run's JSON configuration."""
ENV_STORE = "CODETUNE_STORE"
"""Root of the namespace's artifact store; with a bucket: the pod's own copy of what it needs of it."""
ENV_BUCKET = "CODETUNE_BUCKET"
"""`s3://bucket/prefix` that is the store; unset: the folder is the store itself."""
ENV_NAMESPACE = "CODETUNE_NAMESPACE"
"""The pod's namespace; with a bucket, and in the store service."""
ENV_MODEL = "CODETUNE_MODEL"
"""Folder of the base model."""
ENV_SCRATCH = "CODETUNE_SCRATCH"
"""Folder that is gone after the pod."""
ENV_CREDENTIALS = "CODETUNE_CREDENTIALS"
"""Root of the credentials: one folder per source name, with the keys of its Secret as files."""
ENV_VOLUMES = "CODETUNE_VOLUMES"
"""Root of the volume sources: one folder per source name."""
ENV_FILE_ROOT = "CODETUNE_FILE_ROOT"
"""`file:///x` means `x` below this folder; unset: file URLs are refused. Only a local cluster sets it."""
ENV_TERMINATION_LOG = "CODETUNE_TERMINATION_LOG"
"""Where the last words of a failing container go."""
ENV_LEADER = "CODETUNE_LEADER"
"""`host:port` where the processes of a run on several nodes meet: at the pod with completion index 0."""
ENV_HOSTS = "CODETUNE_HOSTS"
"""File with the addresses of pods' names, as in /etc/hosts. Only a local cluster sets it: it has no DNS."""
ENV_HUB_TOKEN = "HF_TOKEN"
"""The model hub's token; in the init container `fetch` only."""


class Contract(ApiModel):
    """A message between our own parts: an unknown field is a bug, so it is refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class RunConfig(Contract):
    """What every Job gets."""

    nonce: Annotated[str, Field(min_length=16)]
    """Marks this run's protocol lines, so that nothing that is merely printed can pose as one."""
    namespace: str
    name: str
    """Name of the Project or FineTune."""


class ScanConfig(RunConfig):
    """Job `scan`: `python -m codetune_trainer scan`."""

    sources: list[Source]
    files: FileRules
    holdout: Holdout
    output: str
    """Folder below the store, `<ns>/projects/<name>`; the dataset goes to `<output>/<revision hex>`."""
    cache: str
    """Folder below the store for what was fetched, `<ns>/projects/<name>/sources`."""
    fetched: dict[str, str] = {}
    """Sources that are not fetched again because only rules changed: name → commit or digest that was scanned last. One
    that is no longer in the cache is fetched all the same."""
    keep: list[Digest] | None = None
    """Revisions of earlier datasets that somebody uses; the scan removes the others when it has made its own. None: all
    of them stay."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where `files.quality` is measured."""


class ScanResult(Contract):
    """The result line of a scan."""

    revision: Digest
    uri: str
    """Folder of the dataset below the store."""
    sources: list[SourceStatus]
    file_types: list[FileType]
    files: FileCounts
    rejections: list[Rejection]


class DatasetManifest(Contract):
    """`manifest.json` of a dataset; `files.jsonl` and `report.jsonl` lie beside it."""

    revision: Digest
    """Digest over `files.jsonl` (content and split of every accepted file)."""
    sources: list[SourceStatus]
    files: FileCounts
    artifacts: dict[str, FileEntry]
    """`files.jsonl` and `report.jsonl`."""


class DatasetFile(Contract):
    """One line of `files.jsonl`: an accepted file with its text."""

    path: str
    """`<source>/<path in source>`."""
    type: str
    sha256: str
    split: Literal["train", "holdout"]
    text: str


class ReportRow(Contract):
    """One line of `report.jsonl`: every file that was found, accepted or not."""

    path: str
    source: str
    type: str
    bytes: int
    lines: int
    decision: Literal["train", "holdout", "rejected"]
    reason: str = ""
    """The rule that rejected it; of accepted files `Included`, else `HeldOut` when it is held out, else empty."""
    detail: str = ""


class StartAdapter(Contract):
    """The adapter of another FineTune that a run begins with."""

    fine_tune: str
    checkpoint: str
    path: str
    """Folder of that checkpoint below the store."""
    digest: Digest


class TrainConfig(RunConfig):
    """Job `train`: `python -m codetune_trainer train`."""

    dataset: str
    """Folder of the dataset below the store."""
    dataset_revision: Digest
    output: str
    """Folder of this run below the store, `<ns>/finetunes/<name>/<uid>`."""
    base_model: str
    """The base model's URI, recorded in the adapter."""
    device: Literal["cpu", "cuda"]
    gpus: int
    """Of each node; every one gets a process."""
    nodes: int = 1
    preset: Preset
    lora: LoraOverrides
    training: TrainingOverrides
    checkpoints: Checkpoints
    start: StartAdapter | None = None
    memory_deaths: int = 0
    """Pods of this Job that were killed for their memory, as far as that is known when a pod starts: whoever is killed
    can't say it."""


class TrainResult(Contract):
    """The result line of a training run."""

    steps: int
    tokens: int
    best_checkpoint: str
    latest_checkpoint: str
    evaluation: Evaluation | None = None
    """None when the project holds no file out."""
    parameters: Parameters
    checkpoints: list[CheckpointStatus]
    loss_history: list[LossPoint]


class CheckpointManifest(Contract):
    """`MANIFEST.json` of a checkpoint, written last: without it the checkpoint does not exist."""

    name: str
    step: int
    loss: float | None = None
    holdout_loss: float | None = None
    base_model: str
    rank: int
    dataset_revision: Digest
    created_at: str
    adapter: dict[str, FileEntry]
    """What serving loads: `adapter_model.safetensors` and `adapter_config.json`."""
    state: dict[str, FileEntry]
    """What resuming needs, under `state/`."""

    def digest(self) -> Digest:
        """Digest of the adapter's files: what `status.checkpoints[].digest` and serving pods compare."""
        return digest_files(self.adapter)


class FetchConfig(RunConfig):
    """Init container `fetch`: `python -m codetune_trainer fetch`; brings a base model into the store."""

    uri: Annotated[str, Field(pattern=r"^s3://")] | None = None
    """Folder of a bucket that it is taken from; None: from the hub."""
    repository: str = ""
    """`org/name` on the hub."""
    revision: str = ""
    """Branch, tag or commit; `main` when the URI has none."""
    pin: str | None = None
    """File below the store that keeps the commit which the first attempt found; later ones take the same."""
    training: bool = False
    """The model is to be trained: one that can't be is refused before its weights are fetched."""
    train_embeddings: bool = False
    """Its embeddings too: likewise."""


class FetchedModel(Contract):
    """A pin's content: the commit of a base model."""

    repository: str
    revision: str
    """What it was asked for by."""
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class MergeConfig(RunConfig):
    """Job `merge`: `python -m codetune_trainer merge`; writes a base model with an adapter merged into it."""

    checkpoint: str
    adapter: str
    """Folder of the checkpoint below the store."""
    digest: Digest
    """Of the adapter."""
    base_model: str
    """The base model's URI, for messages."""
    output: str
    """Folder of the merged model below the store, `<run>/merged/<checkpoint>`."""


class MergedManifest(Contract):
    """`MANIFEST.json` of a merged model, written last: without it the model does not exist."""

    checkpoint: str
    adapter_digest: Digest
    base_model: str
    files: dict[str, FileEntry]


class PurgeConfig(RunConfig):
    """Job `purge`: `python -m codetune_trainer purge`; removes what a deleted resource left in the store."""

    paths: list[str]
    """Folders below the store."""


class DesiredAdapter(Contract):
    """One adapter that a serving pod should hold."""

    name: str
    """Stable model name."""
    digest: Digest | None = None
    """Digest over its two files; None: whatever is there (an adapter by `uri` without a digest)."""
    path: str
    """PEFT folder below the store, below the file root, or `bucket/prefix`."""
    root: Literal["Files", "S3"] | None = None
    """Files: `path` is below the file root of a local cluster. S3: it begins with the name of a bucket."""


class DesiredAdapters(Contract):
    """Body of `PUT /codetune/adapters`, and `adapters.json` in the mounted ConfigMap."""

    adapters: list[DesiredAdapter] = []


class AdapterReport(Contract):
    """One adapter in a serving pod."""

    name: str
    digest: Digest | None = None
    """What is served under the name now; None when nothing is."""
    desired_digest: Digest | None = None
    phase: Literal["Loading", "Ready", "Failed"]
    reason: str = ""
    """DigestMismatch, AdapterNotFound, BaseModelMismatch, RankTooHigh, InvalidAdapter, CacheFull, StoreUnavailable,
    StoreDenied, LoadFailed."""
    message: str = ""
    rank: int | None = None
    """The adapter's rank, where it is too high for the server as it was started."""


class ServerReport(Contract):
    """Answer of `GET` and `PUT /codetune/adapters`."""

    ready: bool
    """The whole desired set is settled: each adapter is Ready or was refused by name."""
    adapters: list[AdapterReport]
    models: list[str]
    """Stable names that answer now, the base model's first."""
    model_commit: str | None = None
    """Commit of a base model that came from the hub."""
    api_keys: int | None = None
    """How many API keys are valid now; None: none is asked for."""


class Terminated(Failure):
    """What a failing container writes to its termination log."""
