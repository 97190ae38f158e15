"""A pod's folder and the bucket behind it: what a run reads is pulled, what it made is pushed.

A folder with a manifest is whole or not there: the manifest is put last and removed first, and without it nothing is
pulled. Where there is no bucket the folder is the store itself, and nothing is to be done.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from codetune_api.artifacts import CLAIM_URI
from codetune_api.contracts import ENV_BUCKET, ENV_NAMESPACE
from codetune_api.digests import FileEntry, describe_file

from codetune_bucket.bucket import Bucket, for_each
from codetune_bucket.errors import ObjectMissing
from codetune_bucket.location import Location

_MANIFESTS = frozenset({"MANIFEST.json", "manifest.json"})
"""Of checkpoints and merged models, and of datasets."""


class Mirror:
    """A folder of the store in the pod, and the same in the bucket. Raises: BucketError, OSError.

    Args:
        root: The store's folder.
        bucket: Where it is mirrored; None: nowhere.
        namespace: Whose it is; paths that do not begin with it have it before them in the bucket.
    """

    def __init__(self, root: Path, bucket: Bucket | None = None, namespace: str = "") -> None:
        self.root = root
        self.bucket = bucket
        self._namespace = namespace

    @classmethod
    def from_environment(cls, root: Path, environment: Mapping[str, str] = os.environ) -> "Mirror":
        """What the pod was told. Raises: ValueError."""
        uri = environment.get(ENV_BUCKET)
        if not uri:
            return cls(root)
        namespace = environment.get(ENV_NAMESPACE, "")
        if not namespace:
            raise ValueError(f"{ENV_BUCKET} is set, but {ENV_NAMESPACE} is not")
        return cls(root, Bucket(Location.parse(uri)), namespace)

    @property
    def is_remote(self) -> bool:
        """Whether there is a bucket."""
        return self.bucket is not None

    @property
    def uri(self) -> str:
        """What the URIs of artifacts begin with."""
        return self.bucket.location.uri if self.bucket is not None else CLAIM_URI

    def key(self, path: str) -> str:
        """Where a path of the store lies in the bucket, below its prefix."""
        return path if path.startswith(f"{self._namespace}/") else f"{self._namespace}/{path}"

    def pull(self, path: str, manifest: str = "") -> bool:
        """Have a folder as the bucket has it; files that only the pod has stay. Returns: whether it is there.

        Args:
            path: Below the store.
            manifest: Name of the file without which it is not there.
        """
        if self.bucket is None:
            return (self.root / path).is_dir()
        names = set(self._list(path))
        if not names or (manifest and manifest not in names):
            return False
        for_each(lambda name: self.pull_file(f"{path}/{name}"), sorted(names - {manifest}))
        return not manifest or self.pull_file(f"{path}/{manifest}")

    def pull_file(self, path: str, expected: FileEntry | None = None) -> bool:
        """Have a file as the bucket has it. Returns: whether it is there."""
        if self.bucket is None:
            return (self.root / path).is_file()
        try:
            self.bucket.fetch(self.key(path), self.root / path, expected)
        except ObjectMissing:
            return False
        return True

    def push(self, path: str, manifest: str = "") -> None:
        """Put a folder into the bucket as the pod has it; what only the bucket has stays.

        Args:
            path: Below the store. Names in it that begin with a dot are work in progress, and left out.
            manifest: Name of the file that is put last: with it the folder is there.
        """
        if self.bucket is None:
            return
        folder = self.root / path
        found = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        names = {name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts)}
        if manifest:
            self._withdraw(f"{path}/{manifest}")
        for_each(lambda name: self.push_file(f"{path}/{name}"), sorted(names - {manifest}))
        if manifest:
            self.push_file(f"{path}/{manifest}")

    def push_file(self, path: str) -> None:
        """Put one file."""
        if self.bucket is not None:
            self.bucket.put(self.root / path, self.key(path))

    def remove(self, path: str) -> None:
        """Remove a folder from the bucket with everything in it, manifests first; and a file of that name."""
        if self.bucket is None:
            return
        names = self._list(path)
        manifests = [name for name in names if name.rpartition("/")[2] in _MANIFESTS]
        for those in (manifests, names):
            self.bucket.remove(self.key(f"{path}/{name}") for name in those)
        self.bucket.remove([self.key(path)])

    def folders(self, path: str) -> set[str]:
        """Names of the folders in a folder, in the bucket or, where there is none, in the store."""
        if self.bucket is not None:
            return self.bucket.folders(self.key(path))
        folder = self.root / path
        return {entry.name for entry in folder.iterdir() if entry.is_dir()} if folder.is_dir() else set()

    def _list(self, path: str) -> list[str]:
        assert self.bucket is not None
        start = f"{self.key(path)}/"
        return [found.path.removeprefix(start) for found in self.bucket.list(self.key(path))]

    def _withdraw(self, path: str) -> None:
        """The manifest of other files goes before any of these comes."""
        assert self.bucket is not None
        there = self.bucket.look(self.key(path))
        if there is not None and there.sha256 != describe_file(self.root / path).sha256:
            self.bucket.remove([self.key(path)])
