"""Asks a server for a file: follows few redirects, carries credentials to nobody else, and says what answers mean.

Proxies and certificate authorities are the environment's (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`, …).
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import httpx2

from codetune_trainer.errors import AuthenticationFailed, SourceError, SourceUnavailable, UnsupportedSource
from codetune_trainer.scan.archive.urls import Link, follow

CONNECT_SECONDS = 30.0
SILENCE_SECONDS = 60.0
"""How long a server may send nothing."""
MOST_REDIRECTS = 5
CONNECT_ATTEMPTS = 3
"""A server that can't be reached at all is tried less often than one that breaks off."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "codetune-scan"}
"""identity: what is saved must be the file itself, or ranges and digests are of something else."""


class Interrupted(Exception):
    """An attempt failed, and another one may succeed.

    Args:
        message: What happened.
        attempts: After how many attempts it is no use any more.
        wait_seconds: What the server asks to wait for.
        hint: What a person can do about it.
    """

    def __init__(self, message: str, *, attempts: int, wait_seconds: float = 0, hint: str = "") -> None:
        super().__init__(message)
        self.attempts = attempts
        self.wait_seconds = wait_seconds
        self.hint = hint


@contextmanager
def ask(
    link: Link, credentials: Mapping[str, str], wanted: Mapping[str, str], body: bytes | None = None
) -> Iterator[httpx2.Response]:
    """The answer that the link leads to at last; its body is not read yet.

    Args:
        link: Where to begin.
        credentials: Headers for the link's own origin; left out from the first redirect to another one on.
        wanted: Other headers.
        body: What is posted; None: nothing is, and the link is got.

    Raises:
        Interrupted: The server can't be reached now.
        SourceError: A redirect leads nowhere that is taken, or the server's certificate is not trusted.
    """
    with ExitStack() as stack:
        client = stack.enter_context(_open_client())
        place, trusted = link, True
        for _ in range(1 + MOST_REDIRECTS):
            trusted = trusted and place.origin == link.origin
            headers = {**(credentials if trusted else {}), **wanted}
            request = client.build_request("GET" if body is None else "POST", place.url, headers=headers, content=body)
            response = _send(client, request, place)
            if response.status_code not in _REDIRECTS:
                stack.callback(response.close)
                yield response
                return
            response.close()
            place = follow(place, response.headers.get("Location", ""))
        message = f"{link.shown} redirects more than {MOST_REDIRECTS} times."
        raise UnsupportedSource(message, "Give the direct link of the file itself.")


def explain(response: httpx2.Response, link: Link, *, credentials: bool) -> Exception:
    """What an answer without a file means.

    Args:
        response: The answer.
        link: What was asked for.
        credentials: Whether the source has a Secret.
    """
    status = response.status_code
    said = f"status {status}"
    if status in _BUSY:
        wait = response.headers.get("Retry-After", "")
        seconds = float(wait) if re.fullmatch(r"[0-9]{1,6}", wait) else 0.0
        return Interrupted(f"the server answered with {said}", attempts=CONNECT_ATTEMPTS, wait_seconds=seconds)
    if status in {401, 403}:
        return _explain_denied(response, link, credentials=credentials)
    if status in {404, 410}:
        hint = "Check the URL. Some servers hide a file so from who may not read it: then name a Secret."
        return SourceUnavailable(f"{link.shown} does not exist ({said}).", hint)
    if status == 407:
        return SourceUnavailable(f"The proxy wants credentials ({said}).", "Put them into HTTPS_PROXY of the scan.")
    hint = "Check that the URL is a direct link that a plain GET answers."
    return SourceUnavailable(f"{link.shown} gives no file: the server answered with {said}.", hint)


def _explain_denied(response: httpx2.Response, link: Link, *, credentials: bool) -> SourceError:
    status, host = response.status_code, response.url.host
    if host != link.url.host:
        message = f"{link.shown} redirects to {host}, which refuses (status {status})."
        hint = f"Credentials are given to {link.url.host} only: use the link on {host} itself with a Secret for it."
        return AuthenticationFailed(message, hint)
    if credentials:
        hint = "Check that the Secret in credentialsSecretRef is valid and may read the file."
        return AuthenticationFailed(f"{link.shown} refuses the credentials (status {status}).", hint)
    hint = "Name a Secret in credentialsSecretRef: basic-auth, `token` or `header.NAME`."
    return AuthenticationFailed(f"{link.shown} asks for credentials (status {status}).", hint)


def _open_client() -> httpx2.Client:
    timeout = httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    try:
        return httpx2.Client(timeout=timeout, follow_redirects=False, headers=_HEADERS)
    except (ValueError, ImportError, httpx2.InvalidURL, OSError) as error:
        # The library's words may quote the proxy's password.
        hint = "Correct HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE; proxies must be http or https."
        raise SourceUnavailable("The proxy or certificate settings of the environment can't be used.", hint) from error


def _send(client: httpx2.Client, request: httpx2.Request, place: Link) -> httpx2.Response:
    try:
        return client.send(request, stream=True)
    except httpx2.ConnectError as error:
        if _is_certificate(error):
            hint = "Give the scan the server's certificate authority (SSL_CERT_FILE), or use the right host name."
            raise SourceUnavailable(f"The certificate of {place.shown} is not trusted: {error}", hint) from error
        raise Interrupted(str(error) or "no connection", attempts=CONNECT_ATTEMPTS) from error
    except httpx2.TransportError as error:
        raise Interrupted(str(error) or type(error).__name__, attempts=CONNECT_ATTEMPTS) from error
    except UnicodeError as error:  # the library looks at a redirect's host before we do
        message = f"{place.shown} redirects to a host whose name can't be decoded."
        raise UnsupportedSource(message, "Give the direct link of the file itself.") from error


def _is_certificate(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
