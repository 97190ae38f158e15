"""What the operator and a team's gateway agree on."""

from typing import Annotated

from pydantic import Field

from codetune_api.contracts import Contract

ENV_TEAM_KEYS = "CODETUNE_TEAM_KEYS"
"""Folder whose files hold the team's API keys, one a line."""
ENV_SERVER_KEYS = "CODETUNE_SERVER_KEYS"
"""Folder with a folder for each Secret that a ModelDeployment takes its API keys from; unset: none asks for any."""

METRICS_PORT = 8001
"""Where a gateway tells what was used, apart from where it completes: who may do the one has no right to the other."""

GATEWAY_SUFFIX = "-gateway"
"""With this behind it, a Team's name is that of its gateway's Service."""

PROJECT_HEADER = "X-Codetune-Project"
"""Names the project that a request is about, before its `model` does."""
PROJECT_PREFIX = "project/"
"""`project/NAME` as the `model` of a request does the same."""
DEFAULT_MODEL = "default"
"""As the `model` of a request, or none at all: the team's own."""


class Upstream(Contract):
    """A model, and where it is served."""

    url: str | None
    """Base URL of its ModelDeployment, without `/v1`; None: there is none now."""
    model: str
    """Name that it has there."""
    deployment: str
    """Name of the ModelDeployment, for messages."""
    keys: str | None = None
    """Folder of that deployment's keys below `ENV_SERVER_KEYS`; None: it asks for none."""


class GatewayConfig(Contract):
    """What a gateway admits, and where it sends it."""

    team: str
    default: Upstream | None = None
    projects: dict[str, Upstream] = {}
    """By the Project's name."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """What this pod admits; None: everything."""
