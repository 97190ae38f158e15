"""Which headers pass. Pure.

On the way up those are named that do, so that nothing that a server takes orders by (its keys, cookies, the adapter
that SageMaker's headers choose, ranks) comes from a client. On the way down those are named that don't.
"""

from collections.abc import Iterator

from multidict import CIMultiDict, MultiMapping

_UP = frozenset({"accept", "accept-language", "user-agent", "x-request-id", "traceparent", "tracestate"})
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110, section 7.6.1; so is what `Connection` names."""


def pass_up(headers: MultiMapping[str], key: str | None) -> CIMultiDict[str]:
    """Headers of the request to a server; `key` is the one that it asks for, if it does.

    The body that goes with them is a JSON object, unpacked, whatever the client called it. An answer is asked for as it
    is: a compressed one would be passed on whole, but a server that compresses may hold a stream back.
    """
    dropped = _list_connection(headers)
    passed = CIMultiDict((name, value) for name, value in _list_printable(headers) if name.lower() in _UP - dropped)
    passed.update({"Content-Type": "application/json", "Accept-Encoding": "identity"})
    if key is not None:
        passed["Authorization"] = f"Bearer {key}"
    return passed


def pass_down(headers: MultiMapping[str]) -> CIMultiDict[str]:
    """Headers of the answer to the client."""
    dropped = _HOP_BY_HOP | _list_connection(headers)
    if "Transfer-Encoding" in headers:
        dropped |= {"content-length"}  # RFC 9112, section 6.3: it says nothing then, and must not be passed on
    return CIMultiDict((name, value) for name, value in _list_printable(headers) if name.lower() not in dropped)


def _list_connection(headers: MultiMapping[str]) -> frozenset[str]:
    """What belongs to one connection, as its two ends have agreed."""
    return frozenset(name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(","))


def _list_printable(headers: MultiMapping[str]) -> Iterator[tuple[str, str]]:
    """Bytes that are no text come as lone surrogates, which can't be sent again."""
    return ((name, value) for name, value in headers.items() if value.replace("\t", " ").isprintable())
