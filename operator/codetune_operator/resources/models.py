"""Where a base model comes from and how it gets into a pod: URI → volumes, mounts, init container. Pure."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from codetune_api.common import Failure, ModelPin, Resources, SecretRef
from codetune_api.contracts import ENV_CONFIG, ENV_HUB_TOKEN, ENV_MODEL, FetchConfig

from codetune_operator.resources.pods import container
from codetune_operator.settings import Settings

Obj = dict[str, Any]

MODELS_ROOT = "/codetune/models"
FETCHED_MODEL = "/codetune/scratch/model"
"""A link that the init container `fetch` makes to the model in the store."""
FETCH_CONTAINER = "fetch"
FETCH_CONFIG_KEY = "fetch.json"
_DEFAULT_REVISION = "main"
_FETCH_RESOURCES = Resources(gpus=0, cpu="500m", memory="2Gi")


@dataclass(frozen=True)
class HubModel:
    """A model on the hub."""

    repository: str
    """`org/name`."""
    revision: str


@dataclass(frozen=True)
class BucketModel:
    """A model in a bucket."""

    uri: str
    """`s3://bucket/path`."""


@dataclass(frozen=True)
class ModelSource:
    """What a pod needs to read a base model."""

    path: str
    """Its folder inside the container: the value of CODETUNE_MODEL."""
    volumes: tuple[Obj, ...] = ()
    mounts: tuple[Obj, ...] = ()
    origin: HubModel | BucketModel | None = None
    """Set when an init container has to fetch it first."""

    @property
    def hub(self) -> HubModel | None:
        """Set when it comes from the hub."""
        return self.origin if isinstance(self.origin, HubModel) else None


def locate_model(uri: str, settings: Settings) -> ModelSource | Failure:
    """How to reach the base model that a URI names, or why it can't be used here.

    Args:
        uri: `hf://org/name[@revision]`, `pvc://claim/path`, `s3://bucket/path` or `file:///path`.
        settings: The operator's settings.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "hf":
        return ModelSource(path=FETCHED_MODEL, origin=_read_hub(rest))
    if ".." in PurePosixPath(rest).parts:
        return Failure(
            reason="UnsupportedModel",
            message=f"baseModel {uri!r} leaves its folder with `..`.",
            hint="Write the path without `..`.",
        )
    if scheme == "pvc":
        claim, _, path = rest.partition("/")
        volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        mount = {"name": "model", "mountPath": f"{MODELS_ROOT}/{claim}", "readOnly": True}
        folder = f"{MODELS_ROOT}/{claim}/{path.strip('/')}".rstrip("/")
        return ModelSource(path=folder, volumes=(volume,), mounts=(mount,))
    if scheme == "s3":
        return _locate_in_bucket(uri, settings)
    file_root = settings.file_root
    if file_root is None:
        return Failure(
            reason="UnsupportedModel",
            message=f"baseModel {uri!r} is a file URI, and this operator has no `fileRoot`: only a local cluster has.",
            hint="Put the model on a claim and use pvc://CLAIM/PATH, or name a hub model: hf://ORG/NAME.",
        )
    return ModelSource(path=f"{file_root.rstrip('/')}/{rest.strip('/')}")


def _locate_in_bucket(uri: str, settings: Settings) -> ModelSource | Failure:
    if settings.s3 is not None:
        return ModelSource(path=FETCHED_MODEL, origin=BucketModel(canonical_model(uri)))
    return Failure(
        reason="UnsupportedModel",
        message=f"baseModel {uri!r} is in a bucket, and this operator has no `s3` in its settings.",
        hint="Set `s3` in the operator's settings (endpoint, region, credentialsSecretName), or name a hub model.",
    )


def canonical_model(uri: str) -> str:
    """One spelling for the same model, so that two resources can be compared: `hf://a/b@main` == `hf://a/b`."""
    scheme, _, rest = uri.partition("://")
    if scheme == "hf":
        hub = _read_hub(rest)
        return f"hf://{hub.repository}@{hub.revision}"
    return f"{scheme}://{'/' if rest.startswith('/') else ''}{'/'.join(part for part in rest.split('/') if part)}"


def default_model_name(uri: str) -> str:
    """The name under which a base model is served when spec names none: the last part of its URI."""
    scheme, _, rest = uri.partition("://")
    path = _read_hub(rest).repository if scheme == "hf" else rest
    return path.rstrip("/").rpartition("/")[2]


# A thread that waits for the others spins for less than a millisecond and then sleeps. Sleeping at once makes a step of
# training, which is thousands of short pieces of work, a third slower; spinning for long, where somebody else uses the
# node's cores too, keeps the very thread off its core that the others wait for.
_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def model_environment(model: ModelSource) -> dict[str, str]:
    """What tells a program of ours where the model is, and keeps it off the network."""
    return {ENV_MODEL: model.path, "HF_HUB_OFFLINE": "1", **_WAITING}


def count_threads(resources: Resources) -> list[Obj]:
    """Entries of `env` that give a program as many threads as cores were asked for."""
    asked = {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    return [{"name": "OMP_NUM_THREADS", "valueFrom": asked}] if resources.cpu else []


def hub_repository(uri: str) -> str | None:
    """`org/name` of a hub model's URI; None for another URI."""
    scheme, _, rest = uri.partition("://")
    return _read_hub(rest).repository if scheme == "hf" else None


def build_fetch_config(
    model: HubModel | BucketModel,
    *,
    nonce: str,
    namespace: str,
    name: str,
    pin: str | None = None,
    training: bool = False,
    train_embeddings: bool = False,
) -> FetchConfig:
    """What the init container `fetch` gets as its configuration."""
    if isinstance(model, BucketModel):
        return FetchConfig(
            nonce=nonce,
            namespace=namespace,
            name=name,
            uri=model.uri,
            training=training,
            train_embeddings=train_embeddings,
        )
    return FetchConfig(
        nonce=nonce,
        namespace=namespace,
        name=name,
        repository=model.repository,
        revision=model.revision,
        pin=pin,
        training=training,
        train_embeddings=train_embeddings,
    )


def pin_model(repository: str, commit: str) -> ModelPin:
    """A hub model at a commit, as it stands in status."""
    return ModelPin(uri=f"hf://{repository}@{commit}", commit=commit)


def build_fetch_containers(
    model: ModelSource | None, secret: SecretRef | None, config_mount: Obj, settings: Settings
) -> list[Obj]:
    """The init container that brings a model into the store: it alone has the token and talks to the hub. None where
    there is nothing to bring."""
    if model is None or model.origin is None:
        return []
    env = {ENV_CONFIG: f"{config_mount['mountPath']}/{FETCH_CONFIG_KEY}"}
    if settings.hub.endpoint:
        env["HF_ENDPOINT"] = settings.hub.endpoint
    token: list[Obj] = []
    if secret is not None and model.hub is not None:
        token = [{"name": ENV_HUB_TOKEN, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": "token"}}}]
    fetch = container(
        name=FETCH_CONTAINER,
        image=settings.images.trainer,
        command=["python", "-m", "codetune_trainer", "fetch"],
        settings=settings,
        env=env,
        more_env=token,
        mounts=[config_mount],
        resources=_FETCH_RESOURCES,
        reads_buckets=model.hub is None,
    )
    return [fetch]


def _read_hub(rest: str) -> HubModel:
    repository, _, revision = rest.partition("@")
    return HubModel(repository=repository, revision=revision or _DEFAULT_REVISION)
