"""What an API server's refusals mean: HTTP status and metav1.Status → one of the operator's errors. Pure."""

import json
from typing import Any

from codetune_api.refusals import say_refusal

from codetune_operator.errors import (
    ConflictError,
    ForbiddenError,
    InvalidObjectError,
    MissingError,
    NamespaceTerminatingError,
    OccupiedError,
    OperatorError,
    PermanentError,
    TemporaryError,
)

GRANT = (
    "give the operator that right: upgrade the Helm chart; if its value `watchNamespaces` is set, name this "
    "namespace there"
)
"""What to do where the operator may not do its work."""
_MESSAGE_LIMIT = 1000
_NO_SUCH_FIELD = "failed to create typed patch object"
"""Server-side apply of a field that the kind does not have, as one in a wrong `affinity`: HTTP 500, but for good."""


def translate_refusal(code: int, content: bytes, what: str) -> OperatorError:
    """The error that an answer means.

    Args:
        code: HTTP status, 400 or above.
        content: Body of the answer, most often a metav1.Status.
        what: The request, for the message: method and path.
    """
    status = _read_status(content)
    message = f"{what}: {_bounded(say_refusal(status) or content.decode(errors='replace'))}"
    if _is_terminating(status):
        return NamespaceTerminatingError(message)
    if code == 403:
        return _translate_forbidden(message)
    if code == 404:
        return MissingError(message)
    if code == 409 and "FieldManagerConflict" in _causes(status, "reason"):
        return OccupiedError(f"{message}: an object of this name is there already and is not Codetune's.")
    # A patch that names a uid is refused as invalid where another object is in its place.
    if code == 409 or (code == 422 and "metadata.uid" in _causes(status, "field")):
        return ConflictError(message)
    if code in {400, 405, 406, 413, 415, 422} or _NO_SUCH_FIELD in message:
        return InvalidObjectError(message)
    return TemporaryError(f"{message} (HTTP {code})")


def _translate_forbidden(message: str) -> OperatorError:
    if "exceeded quota" in message:
        return PermanentError(f"{message}: raise the namespace's ResourceQuota, or remove what is not needed any more.")
    if " cannot " in message:
        return ForbiddenError(f"{message}: {GRANT}.")
    return ForbiddenError(message)


def _is_terminating(status: dict[str, Any]) -> bool:
    """Both forms: an object refused in a namespace that goes away."""
    named = "NamespaceTerminating" in _causes(status, "reason")
    return named or "because it is being terminated" in str(status.get("message", ""))


def _causes(status: dict[str, Any], key: str) -> list[str]:
    """The `reason` or `field` of each single cause that an answer names."""
    return [str(cause.get(key, "")) for cause in (status.get("details") or {}).get("causes") or []]


def _read_status(content: bytes) -> dict[str, Any]:
    try:
        status = json.loads(content)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _bounded(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
