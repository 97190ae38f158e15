"""Which links to archives are taken, where a redirect may lead, and how a link is shown. Pure."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from codetune_trainer.errors import UnsupportedSource

_SHOWN_CHARACTERS = 300
_FORM = "Use a direct link: https://HOST/PATH."


@dataclass(frozen=True)
class Link:
    """A place that an archive may be asked from."""

    url: httpx2.URL
    shown: str
    """As people read it: without its query, which may hold a signature or a token."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials are bound to."""
        scheme = self.url.scheme
        return scheme, self.url.host.lower(), self.url.port or (443 if scheme == "https" else 80)


def read_link(url: str) -> Link:
    """Check a link as it stands in `archive.url`.

    Raises:
        UnsupportedSource: It is of no form that is taken.
    """
    if any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise UnsupportedSource("archive.url is no link: it has a blank or a control character.", _FORM)
    try:
        parsed = httpx2.URL(url).copy_with(fragment=None)
        port = urlsplit(url).port
        host = parsed.host  # decoded only now, which fails for some that begin with `xn--`
    except (httpx2.InvalidURL, ValueError) as error:
        # The library's words may quote a part of the URL that is a password.
        raise UnsupportedSource("archive.url is no URL.", _FORM) from error
    if parsed.scheme not in {"http", "https"} or not host or port == 0:
        raise UnsupportedSource(f"{_show(parsed)!r} is no link to an archive.", _FORM)
    if parsed.userinfo:
        hint = "Take them out of the URL and put them into a Secret: sources[].credentialsSecretRef."
        raise UnsupportedSource(f"The URL {_show(parsed)} has credentials in it.", hint)
    return Link(parsed, _show(parsed))


def follow(link: Link, location: str) -> Link:
    """Where a redirect leads.

    Args:
        link: Where it comes from.
        location: What the server says.

    Raises:
        UnsupportedSource: It leads nowhere that is taken.
    """
    try:
        target = read_link(str(link.url.join(location)))
    except (UnsupportedSource, httpx2.InvalidURL, ValueError) as error:
        message = f"{link.shown} redirects to a place that can't be taken."
        raise UnsupportedSource(message, "Give the direct link of the file itself.") from error
    if link.url.scheme == "https" and target.url.scheme != "https":
        hint = "Give a link that stays on https, or an http link if that is meant."
        raise UnsupportedSource(f"{link.shown} redirects to {target.shown}, which is not encrypted.", hint)
    return target


def _show(url: httpx2.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = f":{url.port}" if url.port else ""
    query = "?…" if url.query else ""
    path = url.path if len(url.path) <= _SHOWN_CHARACTERS else f"{url.path[:_SHOWN_CHARACTERS]}…"
    return f"{url.scheme}://{host[:_SHOWN_CHARACTERS]}{port}{path}{query}"
