"""Rows of a dataset's report that a person asked for."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from codetune_api.artifacts import dataset_folder

from codetune_store.errors import InvalidRequest
from codetune_store.files import StoredFiles
from codetune_store.matching import PathPattern

_DECISIONS = frozenset({"train", "holdout", "rejected", "accepted"})
_FILTERS = frozenset({"revision", "decision", "reason", "type", "path"})


@dataclass(frozen=True)
class RowFilter:
    """Which rows are wanted; what is empty lets all through."""

    decision: str = ""
    """`train`, `holdout`, `rejected`, or `accepted` for the first two."""
    reason: str = ""
    type: str = ""
    """Both in lower case, and compared without regard to case."""
    path: PathPattern | None = None
    """Matched against the path inside the source, and against it with the source's name before it."""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "RowFilter":
        """Read a request's query. Raises: InvalidRequest."""
        unknown = sorted(set(query) - _FILTERS)
        if unknown:
            raise InvalidRequest(f"There is no filter {unknown[0]!r}: choose from {', '.join(sorted(_FILTERS))}.")
        decision = query.get("decision", "")
        if decision and decision not in _DECISIONS:
            raise InvalidRequest(f"decision is {decision!r}: give one of {', '.join(sorted(_DECISIONS))}.")
        try:
            path = PathPattern(query["path"]) if query.get("path") else None
        except ValueError as error:
            raise InvalidRequest(f"path: {error}.") from error
        return cls(decision, query.get("reason", "").lower(), query.get("type", "").lower(), path)

    def lets_through(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is wanted."""
        if self.decision == "accepted":
            if row["decision"] == "rejected":
                return False
        elif self.decision and row["decision"] != self.decision:
            return False
        if self.reason and row["reason"].lower() != self.reason:
            return False
        if self.type and str(row["type"]).lower() != self.type:
            return False
        if self.path is None:
            return True
        full = str(row["path"])
        return self.path.matches(full.partition("/")[2]) or self.path.matches(full)


def read_report(files: StoredFiles, namespace: str, project: str, revision: str, wanted: RowFilter) -> Iterator[bytes]:
    """The wanted lines of a dataset's report as they stand in it; the file is open when this returns.

    Raises:
        NotFound: There is no such dataset.
    """
    folder = dataset_folder(namespace, project, revision)
    file = files.open([*folder.split("/"), "report.jsonl"])

    def read() -> Iterator[bytes]:
        with file:
            if wanted == RowFilter():
                yield from file
                return
            for line in file:
                if wanted.lets_through(json.loads(line)):
                    yield line

    return read()
