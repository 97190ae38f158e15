"""What the pod hands to a run: its configuration and the roots that paths in it are relative to."""

import os
from pathlib import Path
from typing import TypeVar

from codetune_api.contracts import ENV_CONFIG, ENV_SCRATCH, ENV_STORE, RunConfig
from pydantic import ValidationError

from codetune_trainer.errors import PermanentError

Config = TypeVar("Config", bound=RunConfig)


def load_config(model: type[Config]) -> Config:
    """The run's configuration. Raises: PermanentError."""
    path = required_path(ENV_CONFIG)
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        text = f"The run configuration {path} can't be used: {error}"
        raise PermanentError("InvalidParameters", text, "Operator and trainer image must be of one version.") from error


def required_path(name: str) -> Path:
    """A path out of the environment. Raises: PermanentError."""
    value = os.environ.get(name)
    if not value:
        raise PermanentError("InvalidParameters", f"The environment variable {name} is not set.")
    return Path(value)


def optional_path(name: str) -> Path | None:
    """A path out of the environment, where it is given."""
    value = os.environ.get(name)
    return Path(value) if value else None


def store() -> Path:
    """Root of the namespace's artifact store."""
    return required_path(ENV_STORE)


def scratch() -> Path:
    """Folder that is gone after the pod."""
    return required_path(ENV_SCRATCH)
