"""What a gateway is told by its environment, and how long it waits for what."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from codetune_api.contracts import ENV_CONFIG
from codetune_api.gateway import ENV_SERVER_KEYS, ENV_TEAM_KEYS, METRICS_PORT, GatewayConfig
from pydantic import ValidationError

ENV_BIND_HOST = "CODETUNE_BIND_HOST"
"""Address to listen on; unset: all of the pod's, IPv4 and IPv6."""
PORT = 8000


@dataclass(frozen=True)
class Timing:
    """Seconds; only tests have others."""

    connect: float = 5.0
    """Longest time for a connection to a server."""
    read: float = 600.0
    """Longest silence of a server: a long prompt is thought about before its first token."""
    keep_alive: float = 4.0
    """How long an idle connection to a server is kept; vLLM closes it after 5."""
    retries: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    """Pauses between attempts to connect."""
    settle: float = 5.0
    """From SIGTERM on, requests come in until every proxy has heard that this pod is going."""
    finish: float = 100.0
    """Longest time after that for the requests that are under way."""
    close: float = 2.0
    """Longest time after that, twice, for the connections to close."""


@dataclass(frozen=True)
class GatewaySettings:
    """What is admitted, where keys are, and where to listen."""

    config: GatewayConfig
    team_keys: Path
    server_keys: Path | None = None
    """None: no server asks for a key."""
    host: str | None = None
    """None: every address of both families; a kubelet probes the pod's first one, which may be IPv6."""
    port: int = PORT
    metrics_port: int = METRICS_PORT

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "GatewaySettings":
        """Read the settings. Raises: ValueError naming the variable that is missing or wrong."""
        given = {name: environment.get(name, "") for name in (ENV_CONFIG, ENV_TEAM_KEYS)}
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise ValueError(f"not set: {', '.join(missing)}; the operator sets them in the Deployment of the gateway")
        server_keys = environment.get(ENV_SERVER_KEYS)
        return cls(
            config=_read_config(Path(given[ENV_CONFIG])),
            team_keys=Path(given[ENV_TEAM_KEYS]),
            server_keys=Path(server_keys) if server_keys else None,
            host=environment.get(ENV_BIND_HOST) or None,
        )


def _read_config(file: Path) -> GatewayConfig:
    """Raises: ValueError."""
    try:
        return GatewayConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{ENV_CONFIG} names {file}, which can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(
            f"{ENV_CONFIG} names {file}, which is no gateway configuration: {where}: {first['msg']}"
        ) from error
