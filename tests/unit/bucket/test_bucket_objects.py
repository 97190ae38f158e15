"""Objects in a bucket of a real server: put, brought, proven, and what is wrong said in words that help."""

import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from bucket_server import BucketServer
from codetune_api.digests import FileEntry
from codetune_bucket.bucket import Bucket
from codetune_bucket.errors import (
    BucketDenied,
    BucketError,
    BucketFull,
    BucketMissing,
    BucketUnavailable,
    ObjectDamaged,
    ObjectMissing,
    ObjectReplaced,
    explain,
)
from codetune_bucket.location import Location

LARGE = b"0123456789abcdef" * (40 << 16)
"""40 MiB: three parts."""


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def entry(content: bytes) -> FileEntry:
    return FileEntry(sha256=sha256(content).hexdigest(), bytes=len(content))


@pytest.mark.parametrize(
    "content",
    [pytest.param(b"", id="empty"), pytest.param(b"adapter", id="small"), pytest.param(LARGE, id="in parts")],
)
def test_what_is_put_is_brought_back(content: bytes, bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.put(write(tmp_path / "mine", content), "ns/file") == entry(content)

    assert bucket.fetch("ns/file", tmp_path / "theirs" / "file") == entry(content)
    assert (tmp_path / "theirs" / "file").read_bytes() == content
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["file"]


def test_an_object_lies_below_the_prefix_and_carries_its_digest(
    bucket: Bucket, bucket_uri: str, tmp_path: Path
) -> None:
    bucket.put(write(tmp_path / "mine", b"adapter"), "ns/file")

    told = bucket.look("ns/file")
    assert told is not None
    assert (told.bytes, told.sha256) == (7, entry(b"adapter").sha256)
    assert bucket.uri("ns/file") == f"{bucket_uri}/ns/file"
    above = Bucket(Location(bucket.location.bucket))
    assert [found.path for found in above.list()] == ["a/prefix/ns/file"]


def test_what_is_there_already_is_not_sent_again(bucket: Bucket, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", b"adapter")
    bucket.put(mine, "ns/file")
    before = bucket.look("ns/file")

    bucket.put(mine, "ns/file")
    assert bucket.look("ns/file") == before
    bucket.put(write(mine, b"ADAPTER"), "ns/file")  # as many bytes, and others
    assert bucket.look("ns/file") != before


def test_a_cut_download_goes_on_where_it_ended(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put(write(tmp_path / "mine", LARGE), "ns/file")
    asked: list[int] = []
    read = Bucket.read

    def cut(self: Bucket, path: str, begin: int, end: int, etag: str = "") -> bytes:
        asked.append(begin)
        if begin >= 32 << 20 and len(asked) <= 3:
            raise BucketUnavailable("The network is gone.", "")
        return read(self, path, begin, end, etag)

    monkeypatch.setattr(Bucket, "read", cut)
    with pytest.raises(BucketUnavailable):
        bucket.fetch("ns/file", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()
    first = len(asked)
    bucket.fetch("ns/file", tmp_path / "theirs")

    assert (tmp_path / "theirs").read_bytes() == LARGE
    assert asked[first:] == [32 << 20], "what was there is not asked for again"


def test_the_rest_of_another_version_is_not_added_to_what_is_there(bucket: Bucket, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    bucket.put(write(mine, b"old version"), "ns/file")
    bucket.fetch("ns/file", theirs)
    bucket.put(write(mine, b"new and longer version"), "ns/file")

    bucket.fetch("ns/file", theirs)
    assert theirs.read_bytes() == b"new and longer version"


def test_a_damaged_object_is_found_by_its_digest(bucket: Bucket, tmp_path: Path) -> None:
    import obstore

    bucket.put(write(tmp_path / "mine", b"adapter"), "ns/file")
    digest = {"sha256": entry(b"adapter").sha256}
    obstore.put(bucket._store, bucket.location.key("ns/file"), b"ADAPTER", attributes=digest)

    with pytest.raises(ObjectDamaged, match="was changed or damaged"):
        bucket.fetch("ns/file", tmp_path / "theirs")
    assert not list(tmp_path.glob("*theirs*"))


def test_an_object_that_is_not_what_was_expected_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(write(tmp_path / "mine", b"adapter"), "ns/file")

    with pytest.raises(ObjectDamaged):
        bucket.fetch("ns/file", tmp_path / "theirs", entry(b"another"))


def test_what_is_not_there_is_missing(bucket: Bucket, tmp_path: Path) -> None:
    assert bucket.look("ns/nothing") is None
    assert list(bucket.list("ns")) == []
    bucket.remove(["ns/nothing"])
    with pytest.raises(ObjectMissing):
        bucket.fetch("ns/nothing", tmp_path / "theirs")


def test_many_objects_are_listed_and_removed(bucket: Bucket, tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", b"x")
    for number in range(30):
        bucket.put(mine, f"ns/{number % 3}/{number:02}")

    assert len(list(bucket.list("ns"))) == 30
    assert bucket.folders("ns") == {"0", "1", "2"}
    bucket.remove(found.path for found in bucket.list("ns/1"))
    assert bucket.folders("ns") == {"0", "2"}


@pytest.mark.parametrize(
    ("expected", "words", "change"),
    [
        pytest.param(
            BucketDenied, "does not know the access key", {"AWS_ACCESS_KEY_ID": "somebody"}, id="unknown access key"
        ),
        pytest.param(
            BucketDenied, "does not accept the secret key", {"AWS_SECRET_ACCESS_KEY": "wrong"}, id="wrong secret key"
        ),
        pytest.param(
            BucketUnavailable,
            "Check s3.endpoint",
            {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"},
            id="nobody at the endpoint",
        ),
    ],
)
def test_what_keeps_a_pod_from_the_bucket_is_said(
    expected: type[BucketError],
    words: str,
    change: dict[str, str],
    bucket_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("codetune_bucket.bucket.RETRIES", 1)
    with pytest.raises(expected, match=words) as raised:
        list(Bucket(Location.parse(bucket_uri)).list("ns"))
    assert "AWS4-HMAC" not in str(raised.value)


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda bucket, file: list(bucket.list("ns")), id="list"),
        pytest.param(lambda bucket, file: bucket.put(file, "ns/file"), id="put"),
    ],
)
def test_a_bucket_that_does_not_exist_is_named(
    use: Callable[[Bucket, Path], object], bucket_uri: str, tmp_path: Path
) -> None:
    nowhere = Bucket(Location("no-such-bucket", "a"))
    with pytest.raises(BucketMissing, match="has no bucket for s3://no-such-bucket/a/ns"):
        use(nowhere, write(tmp_path / "mine", b"x"))


@pytest.mark.parametrize(
    ("expected", "words", "answer"),
    [
        pytest.param(BucketDenied, "clock", "403: <Code>RequestTimeTooSkewed</Code>", id="clock skew"),
        pytest.param(BucketDenied, "session token has expired", "400: <Code>ExpiredToken</Code>", id="expired token"),
        pytest.param(BucketDenied, "list the bucket", "403: <Code>AccessDenied</Code>", id="no right"),
        pytest.param(BucketDenied, "s3.region", "301: <Code>PermanentRedirect</Code>", id="another region"),
        pytest.param(BucketFull, "no room left", "507: <Code>XMinioStorageFull</Code>", id="full disks"),
        pytest.param(BucketFull, "no room left", "403: <Code>QuotaExceeded</Code>", id="quota"),
        pytest.param(BucketUnavailable, "does not work", "503: <Code>SlowDown</Code>", id="overloaded"),
        pytest.param(
            BucketUnavailable,
            "caConfigMapName",
            "error sending request\n\nDebug source:\ninvalid peer certificate: UnknownIssuer",
            id="unknown authority",
        ),
        pytest.param(
            BucketDenied,
            "s3.credentialsSecretName",
            "Error performing PUT http://169.254.169.254/latest/api/token",
            id="no credentials",
        ),
    ],
)
def test_answers_that_this_server_does_not_give_are_understood_too(
    expected: type[BucketError], words: str, answer: str
) -> None:
    found = explain(RuntimeError(answer), "s3://bucket/key", "https://s3.example.org")
    assert type(found) is expected
    assert words in str(found)
    assert "s3://bucket/key" in found.message or "certificate" in found.message


@pytest.mark.parametrize(
    ("expected", "uri"),
    [
        pytest.param(Location("bucket"), "s3://bucket", id="a bucket"),
        pytest.param(Location("bucket", "a/b"), "s3://bucket/a/b/", id="a prefix"),
        pytest.param(Location("my.bucket-1", "a"), "s3://my.bucket-1/a", id="dots and dashes"),
    ],
)
def test_a_place_is_read_from_its_uri(expected: Location, uri: str) -> None:
    assert Location.parse(uri) == expected


@pytest.mark.parametrize(
    "uri", ["s3://", "s3:///a", "s3://Bucket/a", "s3://bucket/../a", "s3://bucket/a//b", "https://x"]
)
def test_what_is_no_place_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="s3://BUCKET/PATH"):
        Location.parse(uri)


def test_a_server_that_was_away_for_a_moment_is_no_failure(
    bucket_server: BucketServer, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put(write(tmp_path / "mine", b"adapter"), "ns/file")
    bucket_server.stop()
    later = threading.Timer(0.5, bucket_server.start)
    later.start()
    bucket.fetch("ns/file", tmp_path / "theirs")
    later.join()
    assert (tmp_path / "theirs").read_bytes() == b"adapter"


def test_another_version_than_the_one_that_was_looked_at_is_not_brought(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(write(tmp_path / "mine", b"first"), "ns/file")
    looked = bucket.look("ns/file")
    assert looked is not None
    bucket.fetch("ns/file", tmp_path / "same", etag=looked.etag)
    bucket.put(write(tmp_path / "mine", b"other"), "ns/file")
    with pytest.raises(ObjectReplaced, match="ns/file was replaced while it was read"):
        bucket.fetch("ns/file", tmp_path / "theirs", etag=looked.etag)
    assert not (tmp_path / "theirs").exists()


def test_a_version_that_is_gone_in_the_middle_is_said(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(write(tmp_path / "mine", b"first"), "ns/file")
    looked = bucket.look("ns/file")
    assert looked is not None
    bucket.put(write(tmp_path / "mine", b"other"), "ns/file")
    with pytest.raises(ObjectReplaced):
        bucket.read("ns/file", 0, 5, looked.etag)


def test_the_etags_of_a_list_are_those_of_a_look(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(write(tmp_path / "mine", LARGE), "ns/file")
    looked = bucket.look("ns/file")
    assert looked is not None
    assert [found.etag for found in bucket.list("ns")] == [looked.etag]
