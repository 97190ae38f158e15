"""Which commit of a hub model a pod serves: the init container `fetch` links to the commit's folder in the store."""

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEPTH = 4
"""Parts of `models/<org>/<name>/<commit>`."""


def find_commit(store: Path, model: Path | None) -> str | None:
    """The commit of the base model; None where it did not come from the hub.

    Args:
        store: Root of the artifact store.
        model: Folder of the base model, or a link to it.
    """
    if model is None or not model.is_symlink():
        return None
    try:
        parts = model.resolve(strict=True).relative_to(store.resolve(strict=True)).parts
    except (OSError, ValueError):
        return None
    fetched = len(parts) == _DEPTH and parts[0] == "models" and _COMMIT.fullmatch(parts[-1])
    return parts[-1] if fetched else None
