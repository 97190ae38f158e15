"""What a serving pod is told by its environment."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.contracts import ENV_FILE_ROOT, ENV_MODEL, ENV_STORE
from codetune_bucket.mirroring import Mirror

ENV_ADAPTERS = "CODETUNE_ADAPTERS"
"""File with the desired adapters at start, `DesiredAdapters` as JSON."""
ENV_ADAPTER_TOKEN_FILE = "CODETUNE_ADAPTER_TOKEN_FILE"
"""File with the bearer token of `/codetune/adapters`."""
ENV_ADAPTER_CACHE = "CODETUNE_ADAPTER_CACHE"
"""Folder for copies of adapters, gone after the pod; unset: one in the system's folder for temporary files."""
ENV_ADAPTER_CACHE_BYTES = "CODETUNE_ADAPTER_CACHE_BYTES"
"""Most bytes that those copies may take; unset: no limit of ours."""
ENV_API_KEYS = "CODETUNE_API_KEYS"
"""Folder whose files hold the API keys of clients, one a line; unset: everybody is served."""
ENV_BASE_MODEL = "CODETUNE_BASE_MODEL"
"""URI of the base model."""
ENV_MAX_LORA_RANK = "CODETUNE_MAX_LORA_RANK"
"""The `--max-lora-rank` that vLLM was started with; `serve` sets it."""
ENV_BIND_HOST = "CODETUNE_BIND_HOST"
"""Address that the server listens on; unset: all of the pod's."""
ENV_DEVICE = "CODETUNE_DEVICE"
"""`cpu` when the pod has no GPU."""
ENV_CPUS = "CODETUNE_CPUS"
"""Whole cores that the pod asked for; unset: as many as it may run on."""
ENV_VLLM_API_KEY = "VLLM_API_KEY"
"""vLLM's own: the key that its OpenAI routes ask for."""

DEFAULT_MAX_LORA_RANK = 16
"""vLLM's own default."""


@dataclass(frozen=True)
class ServerSettings:
    """What the middleware is told."""

    store: Path
    cache: Path
    cache_bytes: int | None = None
    adapters_file: Path | None = None
    token_file: Path | None = None
    api_keys: Path | None = None
    base_model: str = ""
    files: Path | None = None
    """What `file:///` means; only a local cluster has it."""
    mirror: Mirror | None = None
    """The bucket that the store is, where it is one."""
    model: Path | None = None
    """Folder of the base model."""
    max_lora_rank: int = DEFAULT_MAX_LORA_RANK
    api_key: str = ""

    def __repr__(self) -> str:
        """Everything but the key."""
        return f"ServerSettings(store={str(self.store)!r}, base_model={self.base_model!r}, rank≤{self.max_lora_rank})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "ServerSettings":
        """Read the settings. Raises: ValueError naming the variable that is missing or wrong."""
        store = environment.get(ENV_STORE)
        if not store:
            raise ValueError(f"{ENV_STORE} is not set: it names the folder where the artifact store is mounted")
        cache = environment.get(ENV_ADAPTER_CACHE) or tempfile.mkdtemp(prefix="codetune-adapters-")
        rank = _number(environment, ENV_MAX_LORA_RANK, "the whole number that --max-lora-rank has")
        return cls(
            store=Path(store),
            cache=Path(cache),
            cache_bytes=_number(environment, ENV_ADAPTER_CACHE_BYTES, "the bytes that copies of adapters may take"),
            adapters_file=_path(environment.get(ENV_ADAPTERS)),
            token_file=_path(environment.get(ENV_ADAPTER_TOKEN_FILE)),
            api_keys=_path(environment.get(ENV_API_KEYS)),
            base_model=environment.get(ENV_BASE_MODEL, ""),
            files=_path(environment.get(ENV_FILE_ROOT)),
            mirror=Mirror.from_environment(Path(store), environment),
            model=_path(environment.get(ENV_MODEL)),
            max_lora_rank=rank or DEFAULT_MAX_LORA_RANK,
            api_key=environment.get(ENV_VLLM_API_KEY, ""),
        )


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _number(environment: Mapping[str, str], name: str, meaning: str) -> int | None:
    """Raises: ValueError when the variable is set to something else."""
    value = environment.get(name)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} is {value!r}: give {meaning}, 1 or more")
    return int(value)
