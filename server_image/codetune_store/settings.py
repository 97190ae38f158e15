"""What the store service is told by its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.contracts import ENV_NAMESPACE, ENV_STORE
from codetune_api.metadata import STORE_PORT
from codetune_api.storing import ENV_STORE_TOKEN_FILE
from codetune_bucket.mirroring import Mirror

ENV_BIND_HOST = "CODETUNE_BIND_HOST"
"""Address to listen on; unset: all of the pod's, IPv4 and IPv6."""


@dataclass(frozen=True)
class StoreSettings:
    """Where things are."""

    root: Path
    """The mounted artifact store, without links in its path."""
    namespace: str
    token_file: Path
    """Read for each request, so that a new token counts at once."""
    mirrored: Mirror | None = None
    """The bucket behind that folder, where there is one."""
    host: str | None = None
    """None: every address of both families; a kubelet probes the pod's first one, which may be IPv6."""
    port: int = STORE_PORT

    @property
    def mirror(self) -> Mirror:
        """The store, whether it is that folder or a bucket."""
        return self.mirrored or Mirror(self.root)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "StoreSettings":
        """Read the settings. Raises: ValueError naming the variable that is missing."""
        given = {name: environment.get(name, "") for name in (ENV_STORE, ENV_NAMESPACE, ENV_STORE_TOKEN_FILE)}
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise ValueError(f"not set: {', '.join(missing)}; the operator sets them in the Deployment codetune-store")
        root = Path(given[ENV_STORE]).resolve()
        return cls(
            root=root,
            mirrored=Mirror.from_environment(root, environment),
            namespace=given[ENV_NAMESPACE],
            token_file=Path(given[ENV_STORE_TOKEN_FILE]),
            host=environment.get(ENV_BIND_HOST) or None,
        )
