"""How the gateway refuses, in OpenAI's form: its client libraries raise by the status and read the rest.

GatewayError             an answer with a status of 400 or above
├── BadRequest      400  the body is not what it must be, or names no model where there is no default
├── MissingKey      401  no key of the team, or not a valid one
├── UnknownModel    404  the team has no such model
├── UnknownRoute    404  the gateway has no such route
├── WrongMethod     405  the route has other methods
├── TooLarge        413  more bytes than a request may have
├── TooManyRequests 429  the team's limit is used up
└── UpstreamError        the model's server is the trouble; names its ModelDeployment
    ├── UpstreamFailed      502  it answered what can't be passed on, or hung up
    └── UpstreamUnavailable 503  it is not there now, or its keys are not
"""

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, ClassVar

RETRY_SECONDS = 5
"""After this long a server may be there again."""


class Failure(StrEnum):
    """What is the trouble with the server of a model, by class: few enough to be counted by."""

    NO_ENDPOINT = "no_endpoint"
    NO_KEY = "no_key"
    UNREACHABLE = "unreachable"
    NOT_ADMITTED = "not_admitted"
    SILENT = "silent"
    HUNG_UP = "hung_up"
    NO_HTTP = "no_http"
    OTHER = "other"


class GatewayError(Exception):
    """A request that is refused.

    Args:
        message: What is wrong and what to do.
        param: The parameter that is wrong, if it is one.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer says beside its body."""
        return {}

    def to_wire(self) -> dict[str, Any]:
        """The body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(GatewayError):
    """The request is not what it must be."""

    status = 400


class MissingKey(GatewayError):
    """There is no valid key with the request."""

    status, code = 401, "invalid_api_key"

    @property
    def headers(self) -> Mapping[str, str]:
        """How to bring one."""
        return {"WWW-Authenticate": "Bearer"}


class UnknownModel(GatewayError):
    """The team has no such model."""

    status, code = 404, "model_not_found"


class UnknownRoute(GatewayError):
    """The gateway has no such route."""

    status, code = 404, "unknown_url"


class WrongMethod(GatewayError):
    """The route has other methods."""

    status, code = 405, "method_not_supported"

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self._allowed = ", ".join(sorted(allowed))

    @property
    def headers(self) -> Mapping[str, str]:
        """Which those are."""
        return {"Allow": self._allowed}


class TooLarge(GatewayError):
    """The body has more bytes than it may."""

    status, code = 413, "request_too_large"


class TooManyRequests(GatewayError):
    """The team's limit is used up; there is room again after `seconds`."""

    status, type, code = 429, "requests", "rate_limit_exceeded"

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self._seconds = math.ceil(seconds)

    @property
    def headers(self) -> Mapping[str, str]:
        """When to ask again."""
        return {"Retry-After": str(self._seconds)}


class UpstreamError(GatewayError):
    """The server of a model is the trouble; `failure` and `reason` say what it was, for the metrics and for the log."""

    type = "server_error"

    def __init__(self, message: str, deployment: str, failure: Failure, reason: str) -> None:
        super().__init__(message)
        self.deployment = deployment
        self.failure = failure
        self.reason = reason

    @property
    def headers(self) -> Mapping[str, str]:
        """When to ask again."""
        return {"Retry-After": str(RETRY_SECONDS)}


class UpstreamFailed(UpstreamError):
    """The server answered what can't be passed on, or hung up."""

    status, code = 502, "model_failed"


class UpstreamUnavailable(UpstreamError):
    """The server is not there now, or its keys are not."""

    status, code = 503, "model_unavailable"
