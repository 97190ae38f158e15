"""What the store keeps of archives: the last good one, the pinned one, nothing half, nothing that nobody needs."""

import errno
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.errors import DigestMismatch, InvalidArchive, SourceError
from codetune_trainer.scan.archive import download
from codetune_trainer.scan.sources.preparing import prune_cache

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Workshop

CODE = {"a.py": "def a(x):\n    return x\n", "b.py": "def b(x):\n    return x\n"}


def cache(workshop: "Workshop") -> Path:
    return workshop.places.store / "team/projects/code/sources"


def kept(workshop: "Workshop", ending: str) -> list[str]:
    return sorted(path.name for path in cache(workshop).rglob(f"*{ending}"))


def break_server(site: "Site") -> None:
    site.files.clear()


def cut_always(site: "Site") -> None:
    site.put("/code", site.tar({"noise.bin": random.Random(1).randbytes(5000)}), etag="", cuts=[1000] * 20)


def damage(site: "Site") -> None:
    site.put("/code", site.zip(CODE)[:-30], etag='"bad"')


def serve_a_page(site: "Site") -> None:
    site.put("/code", b"<!doctype html>Down for maintenance", etag="")


def refuse(site: "Site") -> None:
    site.files["/code"].needs = {"authorization": "Basic x"}


def stay_busy(site: "Site") -> None:
    site.statuses["/code"] = [(503, {"Retry-After": "0"})] * 20


FAULTS = [
    pytest.param("does not exist", break_server, id="gone"),
    pytest.param("can't be fetched", cut_always, id="always-cut"),
    pytest.param("no directory at its end", damage, id="damaged"),
    pytest.param("web page", serve_a_page, id="a-page"),
    pytest.param("asks for credentials", refuse, id="credentials"),
    pytest.param("status 503", stay_busy, id="busy"),
]


@pytest.mark.parametrize(("said", "fault"), FAULTS)
def test_a_failing_source_keeps_its_last_good_data_and_says_so(
    said: str, fault: Any, workshop: "Workshop", site: "Site"
) -> None:
    workshop.volume("disk", {"d.py": workshop.code("d")})
    site.put("/code", site.zip(CODE))
    sources = (site.source("/code"), workshop.from_volume("disk"))
    good = workshop.scan(*sources).result
    fault(site)
    bad = workshop.scan(*sources).result
    assert bad.revision == good.revision
    archive, disk = bad.sources
    assert archive.digest == good.sources[0].digest
    assert said in archive.message
    assert "last scan" in archive.message
    assert archive.reason
    assert (disk.message, disk.reason) == ("", "")


LOST = [
    pytest.param("SourceUnavailable", {}, id="it is gone"),
    pytest.param("AuthenticationFailed", {"username": "ann"}, id="it lacks a key"),
]


@pytest.mark.parametrize(("reason", "keys"), LOST)
def test_without_its_secret_a_source_keeps_its_last_good_data(
    reason: str, keys: dict[str, str], workshop: "Workshop", site: "Site", write_secret: Callable[..., None]
) -> None:
    site.put("/code", site.zip(CODE))
    write_secret(token="t")
    source = site.source("/code", secret=True)
    good = workshop.scan(source).result
    shutil.rmtree(workshop.root / "credentials" / "app")
    write_secret(**keys)
    bad = workshop.scan(source).result
    assert bad.revision == good.revision
    assert bad.sources[0].reason == reason
    assert "Secret" in bad.sources[0].message


def test_an_archive_of_this_digest_that_is_here_needs_no_secret(
    workshop: "Workshop", site: "Site", write_secret: Callable[..., None]
) -> None:
    content = site.zip(CODE)
    site.put("/code", content)
    write_secret(token="t")
    source = site.source("/code", secret=True, sha256=hashlib.sha256(content).hexdigest())
    good = workshop.scan(source).result
    shutil.rmtree(workshop.root / "credentials" / "app")
    again = workshop.scan(source).result
    assert again.revision == good.revision
    assert again.sources[0].reason == ""


def test_a_disk_that_is_full_keeps_the_last_good_data_and_half_a_download_goes(
    workshop: "Workshop", site: "Site", monkeypatch: pytest.MonkeyPatch
) -> None:
    site.put("/code", site.zip(CODE), etag='"1"')
    good = workshop.scan(site.source("/code")).result
    site.put("/code", site.zip({"b.py": "b = 1\n"}), etag='"2"')

    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_sync", fill)
    bad = workshop.scan(site.source("/code")).result
    assert bad.revision == good.revision
    assert bad.sources[0].reason == "DiskFull"
    assert kept(workshop, "download") == []


@pytest.mark.parametrize(("said", "fault"), FAULTS)
def test_a_source_that_never_worked_says_why_and_stops_no_other(
    said: str, fault: Any, workshop: "Workshop", site: "Site"
) -> None:
    workshop.volume("disk", {"d.py": workshop.code("d")})
    site.put("/code", site.zip(CODE))
    fault(site)
    scanned = workshop.scan(site.source("/code"), workshop.from_volume("disk"))
    assert list(scanned.files) == ["disk/d.py"]
    archive = scanned.result.sources[0]
    assert (archive.digest, said in archive.message) == (None, True)


def test_a_digest_that_fits_is_proven_and_then_not_asked_for_again(workshop: "Workshop", site: "Site") -> None:
    content = site.zip(CODE)
    sha256 = hashlib.sha256(content).hexdigest()
    site.put("/code", content, etag="")
    first = workshop.scan(site.source("/code", sha256=sha256)).result
    site.files.clear()
    second = workshop.scan(site.source("/code", sha256=sha256)).result
    assert len(site.asked) == 1
    assert first.revision == second.revision
    assert second.sources[0].digest == f"sha256:{sha256}"
    assert second.sources[0].message == ""


@pytest.mark.parametrize("before", [False, True], ids=["at-first", "after-a-good-scan"])
def test_another_digest_than_asked_for_is_refused_and_nothing_stands_in(
    before: bool, workshop: "Workshop", site: "Site"
) -> None:
    content = site.zip(CODE)
    site.put("/code", content)
    if before:
        workshop.scan(site.source("/code"))
    with pytest.raises(DigestMismatch) as failure:
        workshop.scan(site.source("/code", sha256="0" * 64))
    assert hashlib.sha256(content).hexdigest() in failure.value.message
    assert "0" * 64 in failure.value.message
    assert "archive.sha256" in failure.value.hint


def test_a_pinned_archive_stays_while_the_link_moves_on(workshop: "Workshop", site: "Site") -> None:
    old = site.zip(CODE)
    pinned = site.source("/code", name="pinned", sha256=hashlib.sha256(old).hexdigest())
    for number in range(4):
        content = old if number == 0 else site.zip({"c.py": f"c = {number}\n"})
        site.put("/code", content, etag=f'"{number}"')
        files = workshop.scan(pinned, site.source("/code", name="z-moving")).files
        assert {path for path in files if path.startswith("pinned/")} == {"pinned/a.py", "pinned/b.py"}
    assert len(kept(workshop, ".pack")) == 3


def test_damage_in_the_store_is_found_and_mended_by_the_next_attempt(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    good = workshop.scan(site.source("/code")).result
    (name,) = kept(workshop, ".pack")
    (pack,) = cache(workshop).rglob(name)
    data = bytearray(pack.read_bytes())
    data[data.index(b"return x")] ^= 1
    pack.write_bytes(data)
    # Other rules, so that nothing that was judged before is taken as it was.
    other = {"maxLineLength": 900}
    with pytest.raises(SourceError, match="damaged; it was removed"):
        workshop.scan(site.source("/code"), files=other)
    assert workshop.scan(site.source("/code"), files=other).result.revision == good.revision


@pytest.mark.parametrize("keep", [0, 5, 40, 100])
def test_a_pack_that_is_not_whole_is_made_anew(keep: int, workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    good = workshop.scan(site.source("/code")).result
    (pack,) = cache(workshop).rglob("*.pack")
    pack.write_bytes(pack.read_bytes()[:keep])
    assert workshop.scan(site.source("/code")).result.revision == good.revision
    assert [asked.status for asked in site.asked] == [200, 200]


@pytest.mark.parametrize(
    "notes", ["", "{", "[]", '{"sha256": "../../../etc/passwd", "validators": {}, "previous": ""}']
)
def test_notes_that_can_not_be_read_make_the_archive_fetched_anew(
    notes: str, workshop: "Workshop", site: "Site"
) -> None:
    site.put("/code", site.zip(CODE))
    good = workshop.scan(site.source("/code")).result
    (path,) = cache(workshop).rglob("current.json")
    path.write_text(notes)
    assert workshop.scan(site.source("/code")).result.revision == good.revision
    assert [asked.status for asked in site.asked] == [200, 200]


def test_what_was_fetched_for_a_link_goes_with_its_source(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    site.put("/more", site.zip(CODE))
    workshop.scan(site.source("/code"), site.source("/more", name="more"))
    assert len([path for path in cache(workshop).iterdir() if path.is_dir()]) == 2
    workshop.scan(site.source("/more", name="more"))
    assert len([path for path in cache(workshop).iterdir() if path.is_dir()]) == 1
    prune_cache([], cache(workshop))
    assert list(cache(workshop).iterdir()) == []


def test_a_truncated_archive_is_not_kept(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.tar(CODE, "w:gz")[:-20])
    with pytest.raises(InvalidArchive):
        workshop.scan(site.source("/code"))
    assert kept(workshop, ".pack") == []
    assert kept(workshop, "download") == []


def test_an_archive_that_is_to_be_scanned_again_is_not_asked_for(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    first = workshop.scan(site.source("/code")).result
    (digest,) = [source.digest for source in first.sources]
    site.put("/code", site.zip({"other.py": "other = 1\n"}))
    asked = len(site.asked)

    again = workshop.scan(
        site.source("/code"), files={"types": ["Python"]}, fetched={site.source("/code")["name"]: digest}
    )

    assert len(site.asked) == asked
    assert [source.digest for source in again.result.sources] == [digest]


def test_an_archive_that_is_no_longer_here_is_asked_for(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.zip(CODE))
    first = workshop.scan(site.source("/code")).result
    (digest,) = [source.digest for source in first.sources]
    for pack in cache(workshop).rglob("*.pack"):
        pack.unlink()
    again = workshop.scan(
        site.source("/code"), files={"types": ["Python"]}, fetched={site.source("/code")["name"]: digest}
    )
    assert again.result.revision == first.revision
