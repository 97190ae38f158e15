"""The log of one container, read on where it broke off."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from codetune_cli.connecting import Connection, Obj
from codetune_cli.streaming import read_pieces, split_lines


@dataclass
class PodLog:
    """What a container prints, and up to where it was read."""

    connection: Connection
    pod: Obj
    container: str
    _last: str = ""
    """Time of the last line that was read, as the kubelet writes it."""
    _with_last: int = 0
    """How many lines of that microsecond were read: a container may print several in one."""

    def read(self, *, follow: bool = False) -> Iterator[str]:
        """The lines that were not read yet; with `follow` until the container ends.

        Raises:
            ApiRefusal: The API server refused.
            Interrupted: The connection broke: read again.
        """
        name = self.pod["metadata"]["name"]
        path = f"/api/v1/namespaces/{self.connection.namespace}/pods/{name}/log"
        query = {"container": self.container, "timestamps": "true"}
        if follow:
            query["follow"] = "true"
        if self._last:
            query["sinceTime"] = self._last  # whole seconds count, so lines come that were read before
        answer = self.connection.open("GET", path, query=query, headers={"Accept": "*/*"})
        until, again, is_new = _read_time(self._last), self._with_last, True
        for line in split_lines(read_pieces(answer)):
            time, _, text = line.decode(errors="replace").partition(" ")
            read = _read_time(time)
            if read is None:  # more of a line that is too long for one, or words of the kubelet
                text = line.decode(errors="replace")
            elif read == until and again:
                again, is_new = again - 1, False
            else:
                is_new = until is None or read >= until
            if is_new:
                if read is not None:
                    self._with_last = self._with_last + 1 if read == _read_time(self._last) else 1
                    self._last = time
                yield text


def _read_time(text: str) -> datetime | None:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read if read.tzinfo is not None else None
