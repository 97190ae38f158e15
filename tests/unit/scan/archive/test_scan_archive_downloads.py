"""Downloads: only what changed, on from where they were cut, proven; a failure keeps the last good archive."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.project import Source
from codetune_trainer.config import Places
from codetune_trainer.errors import SourceUnavailable
from codetune_trainer.scan.archive import asking, download
from codetune_trainer.scan.archive.fetching import FetchedArchive, fetch_archive
from codetune_trainer.scan.archive.pack import list_pack

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Workshop

CODE = {"a.py": "def a(x):\n    return x\n", "b.py": "def b(x):\n    return x\n"}
LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"


def noisy(site: "Site", seed: int = 1) -> bytes:
    """An archive that packing makes no smaller."""
    return site.tar({**CODE, "noise.bin": random.Random(seed).randbytes(200_000)})


def cache(workshop: "Workshop") -> Path:
    return workshop.places.store / "team/projects/code/sources"


def kept(workshop: "Workshop", ending: str) -> list[str]:
    return sorted(path.name for path in cache(workshop).rglob(f"*{ending}"))


@pytest.mark.parametrize(
    ("etag", "modified", "condition"),
    [
        pytest.param('"v1"', "", "if-none-match", id="etag"),
        pytest.param('W/"v1"', "", "if-none-match", id="weak-etag"),
        pytest.param("", LONG_AGO, "if-modified-since", id="time-of-change"),
    ],
)
def test_what_did_not_change_is_not_fetched_again(
    etag: str, modified: str, condition: str, workshop: "Workshop", site: "Site"
) -> None:
    site.put("/code", site.zip(CODE), etag=etag, modified=modified)
    first, second = (workshop.scan(site.source("/code")).result for _ in range(2))
    assert [asked.status for asked in site.asked] == [200, 304]
    assert condition in site.asked[1].headers
    assert (first.revision, first.sources[0].digest) == (second.revision, second.sources[0].digest)
    assert second.sources[0].message == ""


def test_what_changed_is_fetched_and_what_it_replaced_goes_at_the_time_after(
    workshop: "Workshop", site: "Site"
) -> None:
    for number in range(4):
        site.put("/code", site.zip({**CODE, "c.py": f"c = {number}\n"}), etag=f'"{number}"')
        files = workshop.scan(site.source("/code")).files
        assert files["app/c.py"]["text"] == f"c = {number}\n"
    assert len(kept(workshop, ".pack")) == 2
    assert kept(workshop, "download") == []


def test_an_archive_without_any_validator_is_fetched_each_time(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE), etag="")
    for _ in range(2):
        workshop.scan(site.source("/code"))
    assert [asked.status for asked in site.asked] == [200, 200]


@pytest.mark.parametrize(
    ("etag", "modified"),
    [
        pytest.param("", "Thu, 01 Jan 2026 00:00:00 GMT (\xfc)", id="a-date-that-is-no-ascii"),
        pytest.param("", "yesterday", id="no-date"),
        pytest.param("", "Thu, 99 Jan 99999999999 00:00:00 GMT", id="an-impossible-date"),
        pytest.param("1", "", id="an-etag-without-quotes"),
        pytest.param('"\xfc"', "", id="an-etag-that-is-no-ascii"),
        pytest.param(f'"{"e" * 5000}"', "", id="a-long-etag"),
    ],
)
def test_a_validator_of_no_proper_form_is_not_sent_back(
    etag: str, modified: str, workshop: "Workshop", site: "Site"
) -> None:
    site.put("/code", noisy(site), etag=etag, modified=modified, cuts=[50_000])
    workshop.scan(site.source("/code"))
    workshop.scan(site.source("/code"))
    sent = {name for asked in site.asked for name in asked.headers}
    assert not sent & {"if-none-match", "if-modified-since", "if-range", "range"}


def test_a_download_that_is_cut_goes_on_where_it_was(workshop: "Workshop", site: "Site") -> None:
    content = noisy(site)
    site.put("/code", content, cuts=[50_000, 70_000])
    scanned = workshop.scan(site.source("/code"))
    assert [asked.headers.get("range") for asked in site.asked] == [None, "bytes=50000-", "bytes=120000-"]
    assert [asked.status for asked in site.asked] == [200, 206, 206]
    assert sum(asked.sent for asked in site.asked) == len(content)
    assert scanned.result.sources[0].digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_server_that_gives_less_than_was_asked_for_is_asked_for_the_rest(workshop: "Workshop", site: "Site") -> None:
    content = noisy(site)
    site.put("/code", content, cuts=[50_000], most=len(content) // 2)
    scanned = workshop.scan(site.source("/code"))
    assert [asked.status for asked in site.asked] == [200, 206, 206]
    assert sum(asked.sent for asked in site.asked) == len(content)
    assert scanned.result.sources[0].digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    ("file", "ranges"),
    [
        pytest.param({"ranges": False}, [None, "bytes=50000-"], id="a-server-without-ranges"),
        pytest.param({"etag": 'W/"1"'}, [None, None], id="a-weak-etag-proves-no-bytes"),
        pytest.param({"etag": ""}, [None, None], id="nothing-proves-it"),
        pytest.param({"etag": "", "modified": LONG_AGO}, [None, "bytes=50000-"], id="a-time-long-ago-proves-it"),
        pytest.param({"chunked": True}, [None, "bytes=50000-"], id="a-length-that-is-not-told"),
    ],
)
def test_a_download_that_is_cut_ends_well_whatever_the_server_can(
    file: dict[str, Any], ranges: list[str | None], workshop: "Workshop", site: "Site"
) -> None:
    site.put("/code", noisy(site), cuts=[50_000], **file)
    assert set(workshop.scan(site.source("/code")).files) == {"app/a.py", "app/b.py"}
    assert [asked.headers.get("range") for asked in site.asked] == ranges


def test_a_file_that_changed_meanwhile_is_not_put_together_from_two(workshop: "Workshop", site: "Site") -> None:
    old = site.put("/code", noisy(site), cuts=[50_000], etag='"old"')
    site.stall = threading.Event()
    new = noisy(site, seed=2)
    with ThreadPoolExecutor(1) as pool:
        scanning = pool.submit(workshop.scan, site.source("/code"))
        assert site.stalled.wait(30)
        old.content, old.etag = new, '"new"'
        site.stall.set()
        digest = scanning.result(60).result.sources[0].digest
    assert digest == f"sha256:{hashlib.sha256(new).hexdigest()}"
    assert [asked.status for asked in site.asked] == [200, 200]


def fetch(source: Source, root: Path) -> FetchedArchive:
    assert source.archive is not None
    places = Places(store=root / "store", scratch=root / "scratch")
    return fetch_archive(source, source.archive, root / "store/team/projects/code/sources", places)


FETCH = """
import json, resource, signal, sys
from pathlib import Path
from codetune_api.project import Source
from codetune_trainer.config import Places
from codetune_trainer.scan.archive import download
from codetune_trainer.scan.archive.fetching import fetch_archive

source, root, most = Source.from_wire(json.loads(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
download.STRETCH_BYTES = 20_000
places = Places(store=root / "store", scratch=root / "scratch")
fetched = fetch_archive(source, source.archive, root / "store/team/projects/code/sources", places)
print(fetched.reason, file=sys.stderr)
"""
"""The body of a process of its own, where no file may become larger than is said."""


def start(source: dict[str, Any], root: Path, file_bytes: int = 2**30) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-c", FETCH, json.dumps(source), str(root), str(file_bytes)]
    return subprocess.Popen(line, stderr=subprocess.PIPE)


def test_a_killed_download_is_gone_on_with_by_the_next_scan(
    workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "STRETCH_BYTES", 20_000)
    content = noisy(site)
    site.put("/code", content, cuts=[150_000])
    site.stall = threading.Event()
    with start(site.source("/code"), workshop.root) as process:
        assert site.stalled.wait(60)
        while not any(path.stat().st_size > 140_000 for path in cache(workshop).rglob("download")):
            os.sched_yield()
        process.kill()
    site.stall.set()
    scanned = workshop.scan(site.source("/code"))
    assert site.asked[-1].headers["range"] == "bytes=140000-"
    assert scanned.result.sources[0].digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert kept(workshop, "download") == []


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda site: site.tar({"c.py": random.Random(7).randbytes(200_000)}), id="in-the-download"),
        pytest.param(lambda site: site.tar({"c.py": "c = 1\n" * 40_000}, "w:gz"), id="in-the-pack"),
    ],
)
def test_a_full_disk_leaves_the_last_good_archive_as_it_was(build: Any, workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE), etag='"good"')
    good = workshop.scan(site.source("/code")).result
    content = build(site)
    site.put("/code", content, etag='"large"')
    with start(site.source("/code"), workshop.root, file_bytes=60_000) as process:
        _, said = process.communicate(timeout=60)
    assert said.split() == [b"DiskFull"]
    assert [name for name in kept(workshop, "") if name.startswith(".")] == []
    site.files.clear()
    assert workshop.scan(site.source("/code")).result.revision == good.revision
    site.put("/code", content, etag='"large"')
    expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert fetch(Source.from_wire(site.source("/code")), workshop.root).digest == expected


def test_two_scans_at_once_fetch_once_and_agree(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", noisy(site))
    source = Source.from_wire(site.source("/code"))
    with ThreadPoolExecutor(6) as pool:
        fetched = list(pool.map(lambda _: fetch(source, workshop.root), range(6)))
    assert len({(one.pack, one.digest) for one in fetched}) == 1
    assert sorted(asked.status for asked in site.asked) == [200, 304, 304, 304, 304, 304]
    assert [found.path for found in list_pack(fetched[0].pack)] == ["a.py", "b.py", "noise.bin"]


def test_a_server_that_is_busy_is_asked_again(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    site.statuses["/code"] = [(503, {}), (429, {"Retry-After": "0"})]
    assert set(workshop.scan(site.source("/code")).files) == {"app/a.py", "app/b.py"}


def test_a_server_that_falls_silent_does_not_hold_up_the_scan_for_ever(
    workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    site.put("/code", noisy(site), cuts=[1000, 1000])
    site.stall = threading.Event()
    with pytest.raises(SourceUnavailable, match="tried 2 times"):
        workshop.scan(site.source("/code"))


def test_a_server_that_gives_little_at_a_time_does_not_hold_up_the_scan_for_ever(
    workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "FETCH_SECONDS", -1.0)
    site.put("/code", noisy(site))
    with pytest.raises(SourceUnavailable, match="did not end within"):
        workshop.scan(site.source("/code"))


@pytest.mark.parametrize(
    "value", [b"bytes 0-9/10", b"bytes 50000-199999/7", b"bytes */10", b"", b"bytes 99999999999999999999-1/1"]
)
def test_a_part_that_was_not_asked_for_is_thrown_away(
    value: bytes, workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/code", noisy(site), cuts=[50_000])
    site.statuses["/code"] = []
    give = site.statuses.setdefault("/code", [])
    original = download.ask

    def ask(*arguments: Any) -> Any:
        if len(site.asked) == 1:
            give.append((206, {"Content-Range": value.decode()}))
        return original(*arguments)

    monkeypatch.setattr(download, "ask", ask)
    assert set(workshop.scan(site.source("/code")).files) == {"app/a.py", "app/b.py"}
    assert [asked.status for asked in site.asked] == [200, 206, 200]
