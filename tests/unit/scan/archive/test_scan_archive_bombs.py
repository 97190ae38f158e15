"""What is beyond a limit is refused with its cure. The limits are small here: the real ones would take minutes."""

import gzip
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backports import zstd
from codetune_api.project import Source
from codetune_trainer.errors import SourceError
from codetune_trainer.scan.archive.entries import Entry
from codetune_trainer.scan.archive.fetching import FetchedArchive, fetch_archive
from codetune_trainer.scan.archive.limits import Limits
from codetune_trainer.scan.archive.pack import list_pack, write_pack

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Workshop

    Build = Callable[[Site], bytes]

CODE = b"def f(a, b):\n    return a + b\n"
SMALL = Limits(
    archive_bytes=200_000,
    unpacked_bytes=400_000,
    entries=20,
    all_names_bytes=5000,
    ratio=20,
    ratio_free_bytes=100_000,
    file_bytes=350_000,
)
NOISE = random.Random(7).randbytes(150_000)
MANY = {f"{number}.py": CODE for number in range(30)}
BOMB = {"a.py": CODE, "bomb.py": bytes(300_000)}
NAMES = {f"{'d' * 500}/{number}.py": b"" for number in range(12)}
LARGE = {"a": NOISE, "b": bytes(300_000)}
RATIO = "20 times its size"

BOMBS: list[Any] = [
    pytest.param(RATIO, lambda site: site.tar(BOMB, "w:gz"), id="gzip"),
    pytest.param(RATIO, lambda site: site.tar(BOMB, "w:bz2"), id="bzip2"),
    pytest.param(RATIO, lambda site: site.tar(BOMB, "w:xz"), id="xz"),
    pytest.param(RATIO, lambda site: zstd.compress(site.tar(BOMB)), id="zstd"),
    pytest.param(RATIO, lambda site: gzip.compress(site.tar({"a.py": CODE}) + bytes(300_000)), id="behind-the-end"),
    pytest.param(RATIO, lambda site: site.tar({"../bomb": bytes(300_000)}, "w:gz"), id="under-a-refused-name"),
    pytest.param(RATIO, lambda site: site.tar({"bomb": bytes(380_000)}, "w:gz"), id="in-a-file-that-is-not-kept"),
    pytest.param(RATIO, lambda site: site.zip(BOMB), id="zip-deflate"),
    pytest.param(RATIO, lambda site: site.zip(BOMB, zipfile.ZIP_BZIP2), id="zip-bzip2"),
    pytest.param(RATIO, lambda site: site.zip(BOMB, zipfile.ZIP_LZMA), id="zip-lzma"),
    pytest.param(RATIO, lambda site: site.zip({f"{n}.py": bytes(30_000) for n in range(9)}), id="zip-in-small-pieces"),
    pytest.param("more than 400000 bytes", lambda site: site.tar(LARGE, "w:gz"), id="more-than-fits"),
    pytest.param("more than 20 entries", lambda site: site.tar(MANY), id="tar-entries"),
    pytest.param("more than 20 entries", lambda site: site.zip(MANY), id="zip-entries"),
    pytest.param("names have more than 5000 bytes", lambda site: site.tar(NAMES, "w:gz"), id="tar-names"),
    pytest.param("names have more than 5000 bytes", lambda site: site.zip(NAMES), id="zip-names"),
    pytest.param("more than 200000 bytes", lambda _: NOISE * 2, id="a-long-download"),
]


def fetch(workshop: "Workshop", site: "Site", limits: Limits = SMALL) -> FetchedArchive:
    source = Source.from_wire(site.source("/code"))
    assert source.archive is not None
    return fetch_archive(source, source.archive, workshop.places.store / "cache", workshop.places, limits)


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "untold"])
@pytest.mark.parametrize(("message", "build"), BOMBS)
def test_what_is_beyond_a_limit_is_refused(
    message: str, build: "Build", chunked: bool, workshop: "Workshop", site: "Site"
) -> None:
    site.put("/code", build(site), chunked=chunked)
    with pytest.raises(SourceError) as failure:
        fetch(workshop, site)
    assert message in failure.value.message
    assert "source" in failure.value.hint
    kept = [path.name for path in workshop.places.store.rglob("*") if path.is_file()]
    assert [name for name in kept if not name.endswith(".lock")] == []


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_file_that_no_rule_would_read_is_listed_and_not_kept(form: str, workshop: "Workshop", site: "Site") -> None:
    site.put("/code", getattr(site, form)({"big.py": b"x" * 5000, "a.py": CODE}))
    pack = fetch(workshop, site, Limits(file_bytes=1000)).pack
    assert [(found.path, found.size, bool(found.key)) for found in list_pack(pack)] == [
        ("a.py", len(CODE), True),
        ("big.py", 5000, False),
    ]
    assert pack.stat().st_size < 1000


def test_a_small_archive_of_one_repeated_line_is_no_bomb(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.tar({"a.py": CODE * 3000}, "w:xz"))
    assert [found.size for found in list_pack(fetch(workshop, site).pack)] == [len(CODE) * 3000]


@pytest.mark.parametrize("prefix", ["", "code/"], ids=["beside-each-other", "in-a-folder"])
def test_long_names_take_their_own_length_of_memory_once(prefix: str, tmp_path: Path) -> None:
    long = prefix + "\U0001f600" + "/".join(["d" * 200] * 15)  # as text it takes four bytes for each letter
    entries = [Entry(f"{long}{number}.py".encode(), 0) for number in range(3000)]
    names = sum(len(entry.name) for entry in entries)
    tracemalloc.start()
    try:
        write_pack(tmp_path / "pack", iter(entries), Limits())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert names > 8 * 2**20
    assert peak < names + 4 * 2**20
    assert len(list(list_pack(tmp_path / "pack"))) == 3000
