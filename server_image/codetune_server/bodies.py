"""Request bodies: read whole, bounded, and handed on."""

from starlette.types import Message, Receive


class BodyTooLarge(Exception):
    """A request body is larger than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request body is larger than {limit} bytes: send less in one request")


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client hung up first. Raises: BodyTooLarge."""
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise BodyTooLarge(limit)
        if not message.get("more_body", False):
            return b"".join(pieces)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives this body at once and then what the server says, e.g. that the client hung up."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return first.pop() if first else await receive()

    return replayed
