"""`s3://bucket/prefix` in its parts."""

import re
from dataclasses import dataclass

_URI = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


@dataclass(frozen=True)
class Location:
    """A bucket and where in it."""

    bucket: str
    prefix: str = ""
    """Without slashes at its ends."""

    @classmethod
    def parse(cls, uri: str) -> "Location":
        """Raises: ValueError for what is no such URI, or has `..` or empty parts in its path."""
        found = _URI.fullmatch(uri)
        prefix = (found["prefix"] or "").strip("/") if found else ""
        if found is None or (prefix and {"", ".", ".."} & set(prefix.split("/"))):
            raise ValueError(f"{uri!r} is not of the form s3://BUCKET/PATH")
        return cls(found["bucket"], prefix)

    @property
    def uri(self) -> str:
        """As it is written."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, path: str) -> str:
        """The key of a path below it."""
        return f"{self.prefix}/{path}".strip("/")
