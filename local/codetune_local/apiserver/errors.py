"""API errors as Kubernetes words them: each carries its HTTP code, its reason and the Status object of its answer."""

from collections.abc import Iterable
from typing import Any


class ApiError(Exception):
    """A request was refused; `code`, `reason`, `message` and `details` are those of a metav1.Status."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> dict[str, Any]:
        """The Status object of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            **({"reason": self.reason} if self.reason else {}),
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def qualified(plural: str, group: str) -> str:
    """`jobs.batch`, or `pods` for the core group."""
    return f"{plural}.{group}" if group else plural


def _about(plural: str, group: str, name: str) -> dict[str, Any]:
    return {"name": name, **({"group": group} if group else {}), "kind": plural}


def not_found(plural: str, group: str, name: str) -> ApiError:
    """404: there is no such object."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _about(plural, group, name))


def no_such_route() -> ApiError:
    """404: there is no such resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(plural: str, group: str, name: str) -> ApiError:
    """409: an object of this name is there."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _about(plural, group, name))


def conflict(plural: str, group: str, name: str, why: str) -> ApiError:
    """409: somebody else was faster, or a precondition does not hold."""
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _about(plural, group, name))


STALE = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(kind: str, group: str, name: str, causes: Iterable[tuple[str, str, str]]) -> ApiError:
    """422: (field, reason, message) for each thing that is wrong."""
    found = list(causes)
    texts = [f"{field}: {message}" for field, _, message in found]
    whole = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = {**_about(kind, group, name), "causes": []}
    details["causes"] = [{"reason": reason, "message": message, "field": field} for field, reason, message in found]
    qualified_kind = f"{kind}.{group}" if group else kind
    return ApiError(422, "Invalid", f'{qualified_kind} "{name}" is invalid: {whole}', details)


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def unexplained(message: str) -> ApiError:
    """500: what the store refuses without saying what kind of refusal that is."""
    return ApiError(500, "", message)


def forbidden(plural: str, group: str, name: str, why: str) -> ApiError:
    """403 for somebody who is known."""
    quoted = f' "{name}"' if name else ""
    message = f"{qualified(plural, group)}{quoted} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, _about(plural, group, name))


def namespace_terminating(plural: str, group: str, name: str, namespace: str) -> ApiError:
    """403: the namespace takes nothing new any more."""
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    error = forbidden(plural, group, name, why)
    message = f"namespace {namespace} is being terminated"
    cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
    error.details = {**(error.details or {}), "causes": [cause]}
    return error


def method_not_allowed(why: str = "the server does not allow this method on the requested resource") -> ApiError:
    """405."""
    return ApiError(405, "MethodNotAllowed", why)


def too_large(wanted: int, current: int) -> ApiError:
    """504: a version that is not there yet."""
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return ApiError(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1})


def unauthorized() -> ApiError:
    """401."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def gone(resource_version: int) -> ApiError:
    """410: the history does not reach back that far."""
    return ApiError(410, "Expired", f"too old resource version: {resource_version}")
