"""Error replies in the form that OpenAI's client library and vLLM's users know."""

from starlette.responses import JSONResponse

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestTooLargeError",
}


def error_reply(status: int, message: str, param: str | None = None) -> JSONResponse:
    """`{"error": {message, type, param, code}}`."""
    error = {"message": message, "type": _TYPES[status], "param": param, "code": status}
    return JSONResponse({"error": error}, status)


def unknown_model(name: str) -> JSONResponse:
    """vLLM's own words for a model that is not there."""
    return error_reply(404, f"The model `{name}` does not exist.", "model")


def missing_key() -> JSONResponse:
    """OpenAI's form of an answer to a request without a valid API key."""
    message = "This server asks for an API key: give a valid one as Authorization: Bearer … or X-Api-Key: …"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
    return JSONResponse({"error": error}, 401, headers={"WWW-Authenticate": "Bearer"})
