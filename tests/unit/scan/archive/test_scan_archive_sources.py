"""What comes out of an archive: the same dataset whatever its form, paths as in a repository, its digest in status."""

import gzip
import hashlib
import random
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from backports import zstd
from codetune_trainer.errors import EmptyDataset
from codetune_trainer.scan.archive.formats import read_entries
from codetune_trainer.scan.archive.limits import LIMITS
from codetune_trainer.scan.archive.pack import list_pack, read_packed, write_pack
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.scan.archive.conftest import Site
    from unit.scan.conftest import Workshop

CODE = {
    "src/cart.py": "def total(items):\n    return sum(items)\n",
    "src/order.py": "class Order:\n    items = ()\n",
    "src/deep/er/tax.py": "def tax(amount):\n    return amount * 19 / 100\n",
    "README.md": "# Shop\n",
}

FORMS: list[Any] = [
    pytest.param(lambda site: site.zip(CODE), id="zip"),
    pytest.param(lambda site: site.zip(CODE, zipfile.ZIP_STORED), id="zip-stored"),
    pytest.param(lambda site: site.zip(CODE, zipfile.ZIP_BZIP2), id="zip-bzip2"),
    pytest.param(lambda site: site.zip(CODE, zipfile.ZIP_LZMA), id="zip-lzma"),
    pytest.param(lambda site: b"#!/bin/sh\nexec unzip $0\n" + site.zip(CODE), id="zip-that-unpacks-itself"),
    pytest.param(lambda site: site.tar(CODE), id="tar"),
    pytest.param(lambda site: site.tar(CODE, form=tarfile.GNU_FORMAT), id="tar-gnu"),
    pytest.param(lambda site: site.tar(CODE, form=tarfile.USTAR_FORMAT), id="tar-ustar"),
    pytest.param(lambda site: site.tar(CODE, "w:gz"), id="tar-gz"),
    pytest.param(lambda site: site.tar(CODE, "w:bz2"), id="tar-bz2"),
    pytest.param(lambda site: site.tar(CODE, "w:xz"), id="tar-xz"),
    pytest.param(lambda site: zstd.compress(site.tar(CODE)), id="tar-zst"),
    pytest.param(lambda site: in_streams(site.tar(CODE), gzip.compress), id="tar-gz-in-several-streams"),
    pytest.param(lambda site: in_streams(site.tar(CODE), zstd.compress), id="tar-zst-in-several-frames"),
    pytest.param(lambda site: b"\x5a\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(site.tar(CODE)), id="tar-zst-skippable"),
    pytest.param(lambda site: gzip.compress(site.tar(CODE)) + bytes(700), id="tar-gz-padded"),
    pytest.param(lambda site: site.tar({f"shop-1a2b3c/{path}": text for path, text in CODE.items()}), id="in-a-folder"),
    pytest.param(lambda site: site.zip({f"shop/{path}": text for path, text in CODE.items()}), id="zip-in-a-folder"),
    pytest.param(lambda site: site.tar({f"./{path}": text for path, text in CODE.items()}), id="from-the-dot"),
    pytest.param(
        lambda site: site.zip({**{f"shop/{p}": t for p, t in CODE.items()}, "__MACOSX/shop/._x": "x"}),
        id="zip-of-a-mac",
    ),
]


def in_streams(data: bytes, pack: Any) -> bytes:
    return b"".join(pack(data[start : start + 1000]) for start in range(0, len(data), 1000))


@pytest.mark.parametrize("build", FORMS)
def test_every_form_of_the_same_files_gives_the_same_dataset(build: Any, workshop: "Workshop", site: "Site") -> None:
    workshop.volume("app", CODE)
    expected = workshop.scan(workshop.from_volume("app")).result.revision
    archive = build(site)
    site.put("/code.bin", archive)
    scanned = workshop.scan(site.source("/code.bin"))
    assert scanned.result.revision == expected
    (status,) = scanned.result.sources
    assert status.digest == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert (status.commit, status.message, status.bytes > 0) == ("", "", True)


def test_the_status_of_another_source_has_no_digest(workshop: "Workshop") -> None:
    workshop.volume("disk", {"a.py": workshop.code("a")})
    (status,) = workshop.scan(workshop.from_volume("disk")).result.sources
    assert "digest" not in status.to_wire()


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        pytest.param(["a.py", "b/c.py"], ["repo/a.py", "repo/b/c.py"], id="one-folder"),
        pytest.param(["b/a.py", "b/c.py"], ["repo/b/a.py", "repo/b/c.py"], id="only-the-outermost"),
        pytest.param(["a.py", "repo/b.py"], ["a.py", "repo/b.py"], id="a-file-beside-it"),
        pytest.param(["one/a.py", "two/b.py"], ["one/a.py", "two/b.py"], id="two-folders"),
        pytest.param(["a.py"], ["a.py"], id="one-file"),
        pytest.param(["../x.py", "a.py"], ["repo/a.py", "../x.py"], id="a-refused-name-has-no-say"),
        pytest.param([".git/", "a.py"], ["repo/a.py", "repo/.git/config", "repo/.git/HEAD"], id="with-git-folder"),
        pytest.param([".git/"], [".git/config"], id="nothing-but-a-git-folder"),
        pytest.param(["__MACOSX/", "a.py"], ["repo/a.py", "__MACOSX/repo/._a.py"], id="macos-folder"),
    ],
)
@pytest.mark.parametrize("form", ["tar", "zip"])
def test_a_single_folder_around_everything_is_left_out_of_the_paths(
    form: str, expected: list[str], names: list[str], site: "Site", tmp_path: Path
) -> None:
    (tmp_path / "archive").write_bytes(getattr(site, form)({name: f"{name} = 1\n" for name in names}))
    with (tmp_path / "archive").open("rb") as file:
        write_pack(tmp_path / "pack", read_entries(file, LIMITS), LIMITS)
    assert [found.path for found in list_pack(tmp_path / "pack")] == expected


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_an_empty_archive_has_no_files(form: str, workshop: "Workshop", site: "Site") -> None:
    site.put("/code", getattr(site, form)({}))
    with pytest.raises(EmptyDataset, match="no file at all"):
        workshop.scan(site.source("/code"))


def test_a_large_archive_is_read_by_several_processes_alike(workshop: "Workshop", site: "Site") -> None:
    site.put("/code", site.tar({f"m{number % 7}/f{number}.py": workshop.code(f"f{number}") for number in range(1500)}))
    one, many = (workshop.scan(site.source("/code"), workers=workers).result for workers in (1, 3))
    assert one.revision == many.revision
    assert one.files.accepted == 1500
    assert [asked.status for asked in site.asked] == [200, 304]


def test_the_tools_of_the_system_make_what_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree" / "repo"
    names = ["a.py", "d/" + "n" * 200 + ".py", "/".join(["deep"] * 40) + "/x.py", "grün.py"]
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"{name!r}\n")
    (tree / "link.py").symlink_to("a.py")
    for form in ("gnu", "pax", "posix", "oldgnu"):
        made = tmp_path / f"{form}.tar"
        subprocess.run(["tar", f"--format={form}", "-C", str(tree.parent), "-cf", str(made), "repo"], check=True)
        pack = tmp_path / f"{form}.pack"
        with made.open("rb") as file:
            write_pack(pack, read_entries(file, LIMITS), LIMITS)
        found = {entry.path: entry for entry in list_pack(pack)}
        assert set(found) == {*names, "link.py"}
        assert "symbolic link" in found["link.py"].obstacle
        assert list(read_packed(pack, [found[name].key for name in names])) == [f"{n!r}\n".encode() for n in names]


NAMES = st.text(st.characters(exclude_characters="\0\\/:", exclude_categories=["Cs"]), min_size=1, max_size=30)
TREES = st.dictionaries(
    st.lists(NAMES.filter(lambda name: name not in {".", ".."} and name.lower() != ".git"), min_size=1, max_size=4).map(
        "/".join
    ),
    st.binary(max_size=3000),
    min_size=1,
    max_size=8,
)


@given(tree=TREES, mode=st.sampled_from(["w", "w:gz", "w:xz"]), form=st.sampled_from([0, 1, 2]), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_what_the_standard_library_packs_is_read_back(
    tree: dict[str, bytes], mode: str, form: int, seed: int, tmp_path_factory: pytest.TempPathFactory, site_class: Any
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    files = {f"top/{name}": content for name, content in random.Random(seed).sample(sorted(tree.items()), len(tree))}
    tar_form = tarfile.GNU_FORMAT if form == 1 else tarfile.PAX_FORMAT
    archive = site_class.zip(files) if form == 2 else site_class.tar(files, mode, tar_form)
    (folder / "archive").write_bytes(archive)
    with (folder / "archive").open("rb") as file:
        write_pack(folder / "pack", read_entries(file, LIMITS), LIMITS)
    found = list(list_pack(folder / "pack"))
    assert [entry.path for entry in found] == sorted(entry.path for entry in found)
    contents = read_packed(folder / "pack", [entry.key for entry in found])
    expected = tree if len({path.partition("/")[0] for path in files}) == 1 else files
    assert dict(zip((entry.path for entry in found), contents, strict=True)) == expected
