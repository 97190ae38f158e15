"""A real S3-compatible server, and mirrors of a folder into a bucket of it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_server import BucketServer, serve_buckets
from codetune_bucket.bucket import Bucket
from codetune_bucket.location import Location
from codetune_bucket.mirroring import Mirror

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """One server for the tests of a file."""
    with serve_buckets(tmp_path_factory.mktemp("buckets")) as running:
        yield running


@pytest.fixture
def uri(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a bucket of its own, that this process may use."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{server.make_bucket(f'bucket-{next(_numbers)}')}/a/prefix"


@pytest.fixture
def bucket(uri: str) -> Bucket:
    """That place."""
    return Bucket(Location.parse(uri))


@pytest.fixture
def pod(uri: str, tmp_path: Path) -> Callable[[], Mirror]:
    """Makes the empty folder of a new pod, with the bucket behind it."""
    numbers = itertools.count(1)

    def start() -> Mirror:
        root = tmp_path / f"pod-{next(numbers)}"
        root.mkdir()
        return Mirror(root, Bucket(Location.parse(uri)), "team")

    return start
