"""A real S3-compatible server for whoever needs one, and a place in a bucket of it."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bucket_server import BucketServer, serve_buckets
from codetune_bucket.bucket import Bucket
from codetune_bucket.location import Location
from codetune_bucket.mirroring import Mirror

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    """One server for all tests of a process."""
    with serve_buckets(tmp_path_factory.mktemp("buckets")) as running:
        yield running


@pytest.fixture
def bucket_uri(bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a bucket of its own, which this process may use."""
    for name, value in bucket_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{bucket_server.make_bucket(f'bucket-{next(_numbers)}')}/a/prefix"


@pytest.fixture
def bucket(bucket_uri: str) -> Bucket:
    """That place."""
    return Bucket(Location.parse(bucket_uri))


@pytest.fixture
def pod(bucket_uri: str, tmp_path: Path) -> Callable[[], Mirror]:
    """Makes the empty store folder of a new pod in the namespace `team`, with that place behind it."""
    numbers = itertools.count(1)

    def start() -> Mirror:
        root = tmp_path / f"pod-{next(numbers)}"
        root.mkdir()
        return Mirror(root, Bucket(Location.parse(bucket_uri)), "team")

    return start
