"""Git LFS: what is fetched and what is not, whom the Secret is shown to, and servers that give something else."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from codetune_trainer.scan.git import lfs, repacking

if TYPE_CHECKING:
    from unit.scan.conftest import Workshop
    from unit.scan.git.conftest import GitSite

Secret = Callable[..., None]
LOGIN = ("robot", "correct-horse")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


def batches(site: "GitSite") -> int:
    """How often the LFS server was asked what it has."""
    return sum(asked.path.endswith("/objects/batch") for asked in site.asked)


def test_a_file_behind_a_pointer_is_judged_like_any_other(workshop: "Workshop", secure_site: "GitSite") -> None:
    large = workshop.code("large") * 3
    files = {"a.py": workshop.code("a"), "large.py": secure_site.put(large.encode())}
    workshop.repository().commit(files | {"model.bin": secure_site.put(b"\0" * 2000)})
    scanned = workshop.scan(secure_site.source(lfs=True))
    assert scanned.verdicts() == {"a.py": "train", "large.py": "train", "model.bin": "Binary"}
    assert scanned.files["repo/large.py"]["text"] == large
    assert scanned.report["repo/large.py"]["bytes"] == len(large)


def test_without_the_wish_pointers_are_listed(workshop: "Workshop", site: "GitSite") -> None:
    workshop.repository().commit({"a.py": workshop.code("a"), "large.py": site.put(b"b = 1\n")})
    scanned = workshop.scan(site.source())
    assert scanned.verdicts() == {"a.py": "train", "large.py": "Unreadable"}
    assert "a Git LFS pointer" in scanned.report["repo/large.py"]["detail"]
    assert batches(site) == 0


@pytest.mark.parametrize(
    ("verdict", "rules"),
    [
        pytest.param("TooLarge", {}, id="above-max-bytes"),
        pytest.param("Excluded", {"exclude": ["large.py"]}, id="excluded"),
    ],
)
def test_what_a_scan_would_not_read_is_not_asked_for(
    workshop: "Workshop", site: "GitSite", verdict: str, rules: dict[str, Any]
) -> None:
    content = b"x = 1\n" * 100_000 if verdict == "TooLarge" else b"x = 1\n"
    workshop.repository().commit({"a.py": workshop.code("a"), "large.py": site.put(content)})
    scanned = workshop.scan(site.source(lfs=True), files=rules)
    assert scanned.verdicts()["large.py"] == verdict
    assert scanned.report["repo/large.py"]["bytes"] == len(content)
    assert batches(site) == 0


def test_an_object_that_is_here_is_not_fetched_again(workshop: "Workshop", site: "GitSite") -> None:
    repository = workshop.repository()
    repository.commit({"a.py": workshop.code("a"), "one.py": site.put(b"one = 1\n")})
    workshop.scan(site.source(lfs=True))
    repository.commit({"two.py": site.put(b"two = 2\n")})
    site.asked.clear()
    scanned = workshop.scan(site.source(lfs=True))
    assert list(scanned.files) == ["repo/a.py", "repo/one.py", "repo/two.py"]
    assert [asked.path.rpartition("/")[2] for asked in site.asked if asked.path.startswith("/lfs/")] == [
        hashlib.sha256(b"two = 2\n").hexdigest()
    ]
    site.asked.clear()
    workshop.scan(site.source(lfs=True))
    assert batches(site) == 0


def test_an_object_that_no_pointer_names_any_more_goes_in_time(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repacking, "_PACKS_BEFORE_CLEANING", 1)
    repository = workshop.repository()
    repository.commit(
        {"a.py": workshop.code("a"), "old.py": site.put(b"old = 1\n"), "kept.py": site.put(b"kept = 1\n")}
    )
    workshop.scan(site.source(lfs=True))
    (mirror,) = (workshop.places.store / "team/projects/code/sources").glob("git-*.git")
    for loose in mirror.glob("objects/??/*"):
        os.utime(loose, (0, 0))
    blobs = {name: repository.blob(f"{name} = 1\n".encode()) for name in ("old", "kept")}
    for number in range(3):
        repository.git("rm", "--quiet", "--ignore-unmatch", "old.py")
        repository.commit({f"{number}.py": workshop.code(f"f{number}")})
        assert "repo/kept.py" in workshop.scan(site.source(lfs=True)).files
    there = {
        name: repository.git(f"--git-dir={mirror}", "rev-list", "--all", "--objects").count(blob)
        for name, blob in blobs.items()
    }
    assert there == {"old": 0, "kept": 1}
    command = ["git", f"--git-dir={mirror}", "cat-file", "-e", blobs["old"]]
    assert subprocess.run(command, capture_output=True, check=False).returncode


def test_pointers_of_submodules_and_folders_are_followed(workshop: "Workshop", site: "GitSite") -> None:
    lib = workshop.repository("lib").commit({"b.py": site.put(b"b = 1\n")})
    app = workshop.repository("app")
    modules = f'[submodule "lib"]\n\tpath = shop/lib\n\turl = {site.url}/lib/.git\n'
    app.commit({".gitmodules": modules, "shop/a.py": site.put(b"a = 1\n"), "bank/c.py": site.put(b"c = 1\n")})
    app.git("update-index", "--add", "--cacheinfo", f"160000,{lib},shop/lib")
    app.git("commit", "--quiet", "--message", "module")
    scanned = workshop.scan(site.source("app/.git", name="app", lfs=True, submodules=True, path="shop"))
    assert {path: row["text"] for path, row in scanned.files.items()} == {
        "app/a.py": "a = 1\n",
        "app/lib/b.py": "b = 1\n",
    }


def test_the_secret_is_shown_to_the_repositorys_own_host_only(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = LOGIN
    write_secret("repo", username=LOGIN[0], password=LOGIN[1])
    workshop.repository().commit({"a.py": other_site.put(b"a = 1\n"), "b.py": site.put(b"b = 1\n")})

    def place(sha256: str) -> dict[str, Any]:
        elsewhere = sha256 in other_site.objects
        href = f"{(other_site if elsewhere else site).url}/lfs/{sha256}"
        return {"actions": {"download": {"href": href, "header": {"X-Ticket": "7"} if elsewhere else {}}}}

    site.place = place
    scanned = workshop.scan(site.source(lfs=True, secret=True))
    assert list(scanned.files) == ["repo/a.py", "repo/b.py"]
    assert other_site.authorizations == {""}


def test_headers_that_the_server_asks_for_go_to_the_place_that_it_names(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite"
) -> None:
    workshop.repository().commit({"a.py": other_site.put(b"a = 1\n")})
    header = {"Authorization": "Ticket 7", "Host": "evil.example.com"}
    site.place = lambda sha256: {
        "actions": {"download": {"href": f"{other_site.url}/lfs/{sha256}", "header": header, "expires_in": 60}}
    }
    assert list(workshop.scan(site.source(lfs=True)).files) == ["repo/a.py"]
    assert other_site.authorizations == {"Ticket 7"}


def test_a_redirect_of_a_download_takes_no_headers_along(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = LOGIN
    write_secret("repo", username=LOGIN[0], password=LOGIN[1])
    workshop.repository().commit({"a.py": site.put(b"a = 1\n")})
    other_site.objects = site.objects
    site.redirects["/lfs/"] = f"{other_site.url}/lfs/"
    assert list(workshop.scan(site.source(lfs=True, secret=True)).files) == ["repo/a.py"]
    assert other_site.authorizations == {""}


GOOD = b"a = 1\n"
SHA256 = hashlib.sha256(GOOD).hexdigest()


def at(href: str, **more: Any) -> dict[str, Any]:
    """What a server says of where an object is."""
    return {"actions": {"download": {"href": href, **more}}}


@pytest.mark.parametrize(
    ("sentence", "reason", "answer"),
    [
        pytest.param(
            "the server says 404 Gone for good", "", {"error": {"code": 404, "message": "Gone\nfor good"}}, id="no"
        ),
        pytest.param(
            "the server says 503 Busy", "SourceUnavailable", {"error": {"code": 503, "message": "Busy"}}, id="not-now"
        ),
        pytest.param("does not say where it is", "SourceUnavailable", {}, id="nothing"),
        pytest.param("does not say where it is", "SourceUnavailable", {"actions": {}}, id="no-action"),
        pytest.param("names a place that can't be taken", "", at("file:///etc/passwd"), id="file"),
        pytest.param("names a place that can't be taken", "", at("ext::touch x"), id="ext"),
        pytest.param("names a place that can't be taken", "", at("https://me:pw@example.com/x"), id="credentials"),
        pytest.param("names a place that can't be taken", "", at("https://cxn--_/x"), id="undecodable-host"),
        pytest.param("which is not encrypted", "", at("http://127.0.0.1/x"), id="not-encrypted"),
        pytest.param(
            "headers that HTTP does not have", "", at("SITE/lfs/1", header={"X": "a\r\nHost: b"}), id="injection"
        ),
        pytest.param("does not exist (status 404)", "SourceUnavailable", at("SITE/lfs/00"), id="not-there"),
        pytest.param(
            "another content than the pointer names", "SourceUnavailable", at("SITE/lfs/other"), id="another-content"
        ),
        pytest.param(
            "another content than the pointer names", "SourceUnavailable", at("SITE/lfs/short"), id="too-short"
        ),
        pytest.param("gives more than 6 bytes", "", at("SITE/lfs/long"), id="too-long"),
        pytest.param(
            "does not answer as a Git LFS server does", "SourceUnavailable", {"actions": "nonsense"}, id="no-lfs-server"
        ),
    ],
)
def test_an_object_that_can_not_be_had_is_one_file_that_can_not_be_read(
    workshop: "Workshop", secure_site: "GitSite", sentence: str, reason: str, answer: dict[str, Any]
) -> None:
    pointer = POINTER.format(SHA256, len(GOOD))
    workshop.repository().commit({"a.py": pointer, "b.py": workshop.code("b")})
    secure_site.objects = {"other": b"b = 2\n", "short": b"a", "long": GOOD * 1000}
    told = answer
    if "href" in str(answer):
        action = answer["actions"]["download"]
        told = at(**{**action, "href": action["href"].replace("SITE", secure_site.url)})
    secure_site.place = lambda sha256: told
    scanned = workshop.scan(secure_site.source(lfs=True))
    assert scanned.verdicts() == {"a.py": "Unreadable", "b.py": "train"}
    assert scanned.report["repo/a.py"]["detail"].startswith("a Git LFS pointer, not fetched: ")
    assert sentence in scanned.report["repo/a.py"]["detail"]
    assert "1 Git LFS objects were not fetched" in scanned.result.sources[0].message
    assert scanned.result.sources[0].reason == reason


def test_an_lfs_server_on_another_host_that_wants_a_login_gets_none(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = other_site.login = LOGIN
    site.redirects["/repo/.git/info/lfs"] = f"{other_site.url}/repo/.git/info/lfs"
    write_secret("repo", username=LOGIN[0], password=LOGIN[1])
    workshop.repository().commit({"a.py": other_site.put(GOOD), "b.py": workshop.code("b")})
    scanned = workshop.scan(site.source(lfs=True, secret=True))
    assert scanned.verdicts() == {"a.py": "Unreadable", "b.py": "train"}
    assert "redirects to 127.0.0.2, which refuses (status 401)" in scanned.report["repo/a.py"]["detail"]
    assert other_site.authorizations == {""}


def test_objects_of_a_repository_that_is_not_behind_http_are_not_fetched(workshop: "Workshop") -> None:
    workshop.repository().commit({"a.py": POINTER.format(SHA256, len(GOOD)), "b.py": workshop.code("b")})
    scanned = workshop.scan(workshop.from_git("repo", lfs=True))
    assert scanned.verdicts()["a.py"] == "Unreadable"
    assert "over https only" in scanned.report["repo/a.py"]["detail"]


def test_all_objects_together_have_a_limit(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfs, "MOST_BYTES", 10)
    files = {f"{number}.py": site.put(f"a{number} = 1\n".encode()) for number in range(3)}
    workshop.repository().commit(files | {"b.py": workshop.code("b")})
    scanned = workshop.scan(site.source(lfs=True))
    assert sorted(scanned.verdicts().values()) == ["Unreadable", "Unreadable", "train", "train"]
    assert any("more than 10 bytes together" in row["detail"] for row in scanned.report.values())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("version https://git-lfs.github.com/spec/v1\n", id="no-object"),
        pytest.param(POINTER.format("../../etc/passwd", 5), id="no-digest"),
        pytest.param(POINTER.format(SHA256.upper(), 5), id="capitals"),
        pytest.param(POINTER.format(SHA256, -5), id="minus"),
        pytest.param(POINTER.format(SHA256, "9" * 30), id="endless"),
        pytest.param(POINTER.format(SHA256, 6) + "x" * 2000, id="too-long"),
    ],
)
def test_what_only_looks_like_a_pointer_is_not_asked_for(workshop: "Workshop", site: "GitSite", text: str) -> None:
    workshop.repository().commit({"a.py": text, "b.py": workshop.code("b")})
    scanned = workshop.scan(site.source(lfs=True))
    assert scanned.verdicts()["b.py"] == "train"
    assert batches(site) == 0
