"""Where objects live: an index in memory, SQLite behind it, and one ordered history that watches follow.

Everything runs on one event loop, so a write is atomic. SQLite runs in WAL mode without fsync: an acknowledged write
survives the kill of the process, not the loss of power.
"""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from codetune_local.apiserver.errors import gone

Obj = dict[str, Any]
Key = tuple[str, str]
HISTORY = 20_000
"""How many events a late watch can catch up with."""


@dataclass(frozen=True)
class Change:
    """One event of the history; objects in it are never modified."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: str
    object: Obj
    previous: Obj | None


class Storage:
    """Objects by resource (`jobs.batch`) and (namespace, name)."""

    def __init__(self, path: Path | None) -> None:
        # One event loop owns the storage, but not always that of the thread that opened it.
        self._database = sqlite3.connect(
            str(path) if path else ":memory:", isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, body TEXT,"
            " PRIMARY KEY (resource, namespace, name))"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER)")
        self._objects: dict[str, dict[Key, Obj]] = {}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._subscribers: set[asyncio.Queue[Change]] = set()
        for resource, namespace, name, body in self._database.execute("SELECT * FROM objects"):
            self._objects.setdefault(resource, {})[namespace, name] = json.loads(body)
        row = self._database.execute("SELECT value FROM counters WHERE name = 'version'").fetchone()
        self.version = row[0] if row else 1
        self._oldest = self.version
        """Watches can begin after this version."""

    def get(self, resource: str, namespace: str, name: str) -> Obj | None:
        """The object, not to be modified."""
        return self._objects.get(resource, {}).get((namespace, name))

    def all(self, resource: str, namespace: str | None = None) -> list[Obj]:
        """Objects in the order of namespace and name, not to be modified."""
        found = self._objects.get(resource, {})
        keys = sorted(key for key in found if namespace is None or key[0] == namespace)
        return [found[key] for key in keys]

    def put(self, resource: str, obj: Obj) -> Obj:
        """Store an object under the next version."""
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        previous = self._objects.get(resource, {}).get(key)
        metadata["resourceVersion"] = str(self._next())
        self._objects.setdefault(resource, {})[key] = obj
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (resource, *key, json.dumps(obj)))
        self._publish(Change(self.version, "MODIFIED" if previous else "ADDED", resource, obj, previous))
        return obj

    def remove(self, resource: str, namespace: str, name: str) -> Obj:
        """Remove an object; returns its last state, under the version of its removal."""
        obj = self._objects[resource].pop((namespace, name))
        version = self._next()
        last = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}
        self._write(
            "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (resource, namespace, name)
        )
        self._publish(Change(version, "DELETED", resource, last, obj))
        return last

    def _next(self) -> int:
        self.version += 1
        return self.version

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        self._database.execute("BEGIN")
        self._database.execute(statement, values)
        self._database.execute("INSERT OR REPLACE INTO counters VALUES ('version', ?)", (self.version,))
        self._database.execute("COMMIT")

    def _publish(self, change: Change) -> None:
        if len(self._history) == HISTORY:
            self._oldest = self._history[0].version
        self._history.append(change)
        for queue in self._subscribers:
            queue.put_nowait(change)

    def since(self, version: int) -> list[Change]:
        """The changes after a version. Raises: ApiError when the history does not reach back that far."""
        if not self._oldest <= version <= self.version:  # a version to come is that of a cluster that is no more
            raise gone(version)
        return [change for change in self._history if change.version > version]

    def subscribe(self) -> "Subscription":
        """Changes from now on."""
        return Subscription(self._subscribers)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Subscription:
    """A queue of changes; leaving it ends the subscription."""

    def __init__(self, subscribers: set[asyncio.Queue[Change]]) -> None:
        self._subscribers = subscribers
        self.queue: asyncio.Queue[Change] = asyncio.Queue()

    def __enter__(self) -> "Subscription":
        self._subscribers.add(self.queue)
        return self

    def __exit__(self, *_: object) -> None:
        self._subscribers.discard(self.queue)

    def drain(self) -> Iterator[Change]:
        """What is there now."""
        while not self.queue.empty():
            yield self.queue.get_nowait()
