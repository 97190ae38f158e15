"""Reads a run's configuration and the places that its pod was given. A program gets nothing else from outside."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar

from codetune_api.contracts import (
    ENV_CONFIG,
    ENV_CREDENTIALS,
    ENV_FILE_ROOT,
    ENV_MODEL,
    ENV_SCRATCH,
    ENV_STORE,
    ENV_TERMINATION_LOG,
    ENV_VOLUMES,
    RunConfig,
)
from codetune_bucket.mirroring import Mirror
from pydantic import ValidationError

from codetune_trainer.errors import InvalidParameters

Config = TypeVar("Config", bound=RunConfig)


@dataclass(frozen=True)
class Places:
    """Folders that the pod was given, as environment variables."""

    store: Path
    """Root of the artifact store."""
    scratch: Path
    """Gone after the pod."""
    credentials: Path | None = None
    """One folder per source name, with the keys of its Secret as files."""
    volumes: Path | None = None
    """One folder per volume source."""
    file_root: Path | None = None
    """What `file:///` means; None: file URLs are refused."""
    model: Path | None = None
    """Folder of the base model."""
    mirrored: Mirror | None = None
    """The bucket behind the store, where there is one."""

    @cached_property
    def mirror(self) -> Mirror:
        """Brings what a run reads into the store's folder, and what it made out of it."""
        return self.mirrored or Mirror(self.store)


def load_config(model: type[Config]) -> Config:
    """The run's configuration, typed. Raises: InvalidParameters with every field that is wrong."""
    path = _required(ENV_CONFIG)
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        message = f"The configuration {path} can't be read: {error.strerror}."
        raise InvalidParameters(message, f"{ENV_CONFIG} must name the run's JSON file.") from error
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'the whole'}: {fault['msg']}" for fault in error.errors()
        )
        hint = "The operator and the trainer image must be of the same Codetune version."
        raise InvalidParameters(f"The configuration is not valid: {wrong}.", hint) from error


def load_places() -> Places:
    """The pod's folders. Raises: InvalidParameters when a variable is missing that every run needs."""
    store = _required(ENV_STORE)
    try:
        mirror = Mirror.from_environment(store)
    except ValueError as error:
        raise InvalidParameters(f"{error}.", "The operator sets both in every Job.") from error
    return Places(
        store=store,
        scratch=_required(ENV_SCRATCH),
        credentials=_optional(ENV_CREDENTIALS),
        volumes=_optional(ENV_VOLUMES),
        file_root=_optional(ENV_FILE_ROOT),
        model=_optional(ENV_MODEL),
        mirrored=mirror,
    )


def termination_log() -> Path | None:
    """Where last words go; None outside a pod."""
    return _optional(ENV_TERMINATION_LOG)


def inside(root: Path, relative: str, what: str) -> Path:
    """A path below a root, refused when it could leave it by its spelling.

    Args:
        root: The folder that must not be left.
        relative: The path as configured, with `/` between its parts.
        what: Name of the field, for the message.

    Raises:
        InvalidParameters: `relative` is absolute, empty or has `..`.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in relative:
        hint = "Give a path below its root: not empty, no leading /, no `..`."
        raise InvalidParameters(f"{what} {relative!r} is not a path below its root.", hint)
    return root / path


def _optional(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None


def _required(name: str) -> Path:
    path = _optional(name)
    if path is None:
        raise InvalidParameters(f"The environment variable {name} is not set.", "The operator sets it in every Job.")
    return path
