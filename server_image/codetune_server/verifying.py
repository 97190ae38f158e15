"""What must be true of an adapter folder before vLLM is shown it.

vLLM takes any folder that it is given. These checks refuse by name what would not load, what is not what was meant,
and what lies outside the store. They are made on a copy (`copying`), so that what was checked is what is loaded.
"""

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.common import MODEL_URI_PATTERN
from codetune_api.contracts import DesiredAdapter
from codetune_bucket.mirroring import Mirror

from codetune_server.copying import AdapterCopies, AdapterCopy, Source
from codetune_server.objects import find_files
from codetune_server.refusing import Refused
from codetune_server.tensors import highest_rank

CONFIG, WEIGHTS = ADAPTER_FILES
MAX_CONFIG_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


class AdapterVerifier:
    """Copies and checks folders of one store against one base model. Blocking: call it in a thread."""

    def __init__(
        self,
        store: Path,
        copies: AdapterCopies,
        base_model: str,
        max_rank: int,
        files: Path | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        """`files` is what `file:///` means; `mirror` is the store's bucket. Without them only the store is read."""
        self._store = store
        self._files = files
        self._copies = copies
        self._base_model = base_model
        self._max_rank = max_rank
        self._mirror = mirror or Mirror(store)

    def verify(self, adapter: DesiredAdapter) -> AdapterCopy:
        """Bring a folder into the pod. Raises: Refused with the reason and a sentence that says how to mend it."""
        if not _NAME.fullmatch(adapter.name):
            raise Refused(
                "InvalidAdapter",
                f"the name {adapter.name!r} can't be a model name: use at most 128 letters, digits and ._/-",
            )
        try:
            # What is here already needs no store: the folder there may be pruned by now.
            copy = self._copies.find(adapter.digest) if adapter.digest else None
            copy = copy or self._copy(adapter)
            self._check_config(_read_config(copy.folder / CONFIG))
            self._check_weights(copy.folder / WEIGHTS)
        except OSError as error:
            raise Refused(
                "AdapterNotFound",
                f"{error.filename or adapter.path} can't be read ({error.strerror or error}): "
                f"an adapter folder holds {CONFIG} and {WEIGHTS}",
            ) from error
        return copy

    def _copy(self, adapter: DesiredAdapter) -> AdapterCopy:
        """Raises: Refused, OSError."""
        remote = find_files(adapter, self._mirror)
        sizes = {name: file.bytes for name, file in remote.items()} if remote is not None else {}
        files: Mapping[str, Source] = remote if remote is not None else self._find_files(adapter)
        if sizes.get(CONFIG, 0) > MAX_CONFIG_BYTES:
            raise _too_large()
        copy = self._copies.take(files)
        # The digest comes first: of a file that is not the one that was meant, nothing else is worth saying.
        if adapter.digest and copy.digest != adapter.digest:
            raise Refused(
                "DigestMismatch",
                f"{adapter.path} has the digest {copy.digest}, expected was {adapter.digest}: "
                "its files were changed or damaged; write the adapter again or ask for the digest that it has",
            )
        return copy

    def _find_files(self, adapter: DesiredAdapter) -> dict[str, Path]:
        """Raises: Refused, OSError."""
        root = self._files if adapter.root == "Files" else self._store
        if root is None:
            raise Refused(
                "AdapterNotFound", f"file:///{adapter.path} means nothing here: only a local cluster has files"
            )
        folder = _inside(root, adapter.path)
        files = {file: _inside(root, folder / file) for file in ADAPTER_FILES}
        for name, path in files.items():
            if not stat.S_ISREG(path.stat().st_mode):
                raise Refused("InvalidAdapter", f"{name} in {adapter.path} is not a file: write the adapter again")
        if files[CONFIG].stat().st_size > MAX_CONFIG_BYTES:
            raise _too_large()
        return files

    def keep_only(self, digests: set[str]) -> None:
        """Remove the copies of all others. Raises: OSError."""
        self._copies.keep_only(digests)

    def _check_config(self, config: dict[str, Any]) -> None:
        if config.get("peft_type") != "LORA":
            raise Refused("InvalidAdapter", f"{CONFIG} says peft_type {config.get('peft_type')!r}: only LORA is served")
        base = config.get("base_model_name_or_path")
        if _is_uri(base) and _is_uri(self._base_model) and _revised(base) != _revised(self._base_model):
            raise Refused(
                "BaseModelMismatch",
                f"the adapter was trained on {base}, this server holds {self._base_model}: "
                "serve it with a ModelDeployment of its own base model",
            )
        patterns = config.get("rank_pattern") or {}
        ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [None])]
        if not all(type(rank) is int and rank > 0 for rank in ranks):
            raise Refused("InvalidAdapter", f"{CONFIG} names the ranks {ranks}: each must be a positive whole number")
        self._check_rank(max(ranks))

    def _check_weights(self, path: Path) -> None:
        try:
            rank = highest_rank(path)
        except ValueError as error:
            raise Refused("InvalidAdapter", f"{WEIGHTS} is broken, {error}; write the adapter again") from error
        self._check_rank(rank)

    def _check_rank(self, rank: int) -> None:
        if rank > self._max_rank:
            raise Refused(
                "RankTooHigh",
                f"the adapter has rank {rank}, the server was started for ranks up to {self._max_rank}: "
                "start it with a higher --max-lora-rank",
                rank=rank,
            )


def _too_large() -> Refused:
    return Refused("InvalidAdapter", f"{CONFIG} is larger than {MAX_CONFIG_BYTES} bytes: that is not PEFT's")


def _inside(root: Path, path: str | Path) -> Path:
    """The real path, which must lie below the root. Raises: Refused, OSError."""
    root = root.resolve(strict=True)
    real = (root / path).resolve(strict=True)
    if not real.is_relative_to(root) or real == root:
        raise Refused("AdapterNotFound", f"{path} lies outside the artifact store: give a folder inside it")
    return real


def _read_config(path: Path) -> dict[str, Any]:
    """Raises: Refused, OSError."""
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Refused("InvalidAdapter", f"{CONFIG} is not JSON ({error}): write the adapter again") from error
    if not isinstance(config, dict):
        raise Refused("InvalidAdapter", f"{CONFIG} is not a JSON object: write the adapter again")
    return config


def _is_uri(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and re.match(MODEL_URI_PATTERN, value) is not None


def _revised(uri: str) -> str:
    """The URI with the hub's default revision spelled out."""
    return f"{uri}@main" if uri.startswith("hf://") and "@" not in uri else uri
