"""Submodules: which repository each one comes from, what it may not do, and what becomes of one that can't be had."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.errors import UnsupportedSource
from codetune_trainer.scan.git import assembling
from codetune_trainer.scan.git.modules import MODULES_BYTES, find_remote
from codetune_trainer.scan.git.urls import read_url

if TYPE_CHECKING:
    from unit.scan.conftest import Repository, Workshop
    from unit.scan.git.conftest import GitSite

Secret = Callable[..., None]
LOGIN = ("robot", "correct-horse")


@pytest.fixture
def family(workshop: "Workshop") -> "Repository":
    """A repository with a submodule that has a submodule."""
    leaf = workshop.repository("team/leaf").commit({"l.py": workshop.code("l")})
    lib = workshop.repository("team/lib")
    inner = lib.commit_modules({"leaf": ("../leaf", leaf)}, {"b.py": workshop.code("b"), "z.py": workshop.code("z")})
    app = workshop.repository("team/app")
    files = {name: workshop.code(f"f{number}") for number, name in enumerate(("app.py", "lib-x.py", "lib0.py"))}
    app.commit_modules({"lib": ("../lib", inner)}, files)
    return app


def test_submodules_and_those_in_them_are_files_below_their_paths(workshop: "Workshop", family: "Repository") -> None:
    scanned = workshop.scan({"name": "app", "git": {"url": "file:///team/app", "submodules": True}})
    assert list(scanned.files) == [
        "app/app.py",
        "app/lib-x.py",
        "app/lib/b.py",
        "app/lib/leaf/l.py",
        "app/lib/z.py",
        "app/lib0.py",
    ]
    assert scanned.result.sources[0].commit == family.git("rev-parse", "HEAD")
    assert (scanned.result.sources[0].message, scanned.result.sources[0].reason) == ("", "")


def test_several_processes_read_the_same(workshop: "Workshop", site: "GitSite", family: "Repository") -> None:
    leaf = type(family)(workshop.root / "files" / "team" / "leaf").git("rev-parse", "HEAD")
    pointer = {"large.py": site.put(b"from_lfs = 1\n")}
    family.commit_modules({"near": (f"{site.url}/team/leaf/.git", leaf)}, pointer)
    source = site.source("team/app/.git", name="app", submodules=True, lfs=True)
    alone, several = (workshop.scan(source, workers=workers) for workers in (1, 3))
    assert {"app/large.py", "app/near/l.py"} < set(several.files)
    assert alone.result.revision == several.result.revision


def test_a_submodule_that_is_away_keeps_what_was_fetched(workshop: "Workshop", family: "Repository") -> None:
    source = {"name": "app", "git": {"url": "file:///team/app", "submodules": True}}
    workshop.scan(source)
    mirrors = set((workshop.places.store / "team/projects/code/sources").glob("git-*.modules/app/git-*.git"))
    lib = workshop.root / "files" / "team" / "lib"
    newer = type(family)(lib).commit({"n.py": workshop.code("n")})
    family.commit_modules({"lib": ("../lib", newer)})
    (lib / ".git").rename(lib / "away")
    assert workshop.scan(source).verdicts()["lib"] == "Unreadable"
    assert [mirror for mirror in mirrors if mirror.exists()]


def test_all_submodules_together_have_a_limit(
    workshop: "Workshop", family: "Repository", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "MOST_ENTRIES", 8)
    scanned = workshop.scan({"name": "app", "git": {"url": "file:///team/app", "submodules": True}})
    assert scanned.verdicts()["app.py"] == "train"
    assert "more than 8 files" in str(scanned.report)


def test_without_the_wish_submodules_are_listed_only(workshop: "Workshop", family: "Repository") -> None:
    scanned = workshop.scan({"name": "app", "git": {"url": "file:///team/app"}})
    assert scanned.verdicts()["lib"] == "Unreadable"
    assert scanned.report["app/lib"]["detail"].startswith("a submodule at commit")
    assert scanned.result.sources[0].message == ""


def test_patterns_match_paths_through_submodules(workshop: "Workshop", family: "Repository") -> None:
    source = {"name": "app", "git": {"url": "file:///team/app", "submodules": True}}
    scanned = workshop.scan(source, files={"exclude": ["lib/leaf/", "/z.py"]})
    assert scanned.verdicts()["lib/leaf/l.py"] == "Excluded"
    assert scanned.verdicts()["lib/z.py"] == "train"


def test_a_submodule_that_moves_on_is_followed_and_one_that_goes_is_forgotten(
    workshop: "Workshop", family: "Repository"
) -> None:
    source = {"name": "app", "git": {"url": "file:///team/app", "submodules": True}}
    workshop.scan(source)
    cache = workshop.places.store / "team/projects/code/sources"
    assert len(list(cache.glob("git-*.modules/app/git-*.git"))) == 2
    leaf = workshop.root / "files" / "team" / "leaf"
    newer = type(family)(leaf).commit({"n.py": workshop.code("n")})
    family.commit_modules({"lib": ("../leaf", newer)})
    scanned = workshop.scan(source)
    assert [path for path in scanned.files if "/lib/" in path] == ["app/lib/l.py", "app/lib/n.py"]
    assert len(list(cache.glob("git-*.modules/app/git-*.git"))) == 1


def test_a_commit_that_is_here_is_not_asked_for_again(workshop: "Workshop", site: "GitSite") -> None:
    lib = workshop.repository("lib").commit({"b.py": workshop.code("b")})
    app = workshop.repository("app")
    app.commit_modules({"lib": (f"{site.url}/lib/.git", lib)}, {"a.py": workshop.code("a")})
    source = site.source("app/.git", name="app", submodules=True)
    workshop.scan(source)
    site.asked.clear()
    assert list(workshop.scan(source).files) == ["app/a.py", "app/lib/b.py"]
    assert not [asked.path for asked in site.asked if asked.path.startswith("/lib")]


def test_submodules_below_a_path_only_are_fetched(workshop: "Workshop", site: "GitSite") -> None:
    lib = workshop.repository("lib").commit({"b.py": workshop.code("b")})
    app = workshop.repository("app")
    links = {"shop/lib": (f"{site.url}/lib/.git", lib), "bank/lib": (f"{site.url}/nowhere/.git", lib)}
    app.commit_modules(links, {"shop/a.py": workshop.code("a")})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True, path="shop"))
    assert list(scanned.files) == ["app/a.py", "app/lib/b.py"]
    assert not [asked.path for asked in site.asked if "nowhere" in asked.path]


def test_the_secret_opens_submodules_of_its_own_host_only(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = LOGIN
    near = workshop.repository("near").commit({"n.py": workshop.code("n")})
    far = workshop.repository("far").commit({"f.py": workshop.code("f")})
    app = workshop.repository("app")
    links = {"near": ("../../near/.git", near), "far": (f"{other_site.url}/far/.git", far)}
    app.commit_modules(links, {"a.py": workshop.code("a")})
    write_secret("app", username=LOGIN[0], password=LOGIN[1])
    scanned = workshop.scan(site.source("app/.git", name="app", secret=True, submodules=True))
    assert list(scanned.files) == ["app/a.py", "app/far/f.py", "app/near/n.py"]
    assert other_site.authorizations == {""}


def test_a_submodule_of_another_host_that_wants_a_login_gets_none(
    workshop: "Workshop", site: "GitSite", other_site: "GitSite", write_secret: Secret
) -> None:
    site.login = other_site.login = LOGIN
    far = workshop.repository("far").commit({"f.py": workshop.code("f")})
    app = workshop.repository("app")
    app.commit_modules({"far": (f"{other_site.url}/far/.git", far)}, {"a.py": workshop.code("a")})
    write_secret("app", username=LOGIN[0], password=LOGIN[1])
    scanned = workshop.scan(site.source("app/.git", name="app", secret=True, submodules=True))
    assert scanned.verdicts()["far"] == "Unreadable"
    assert "asks for other credentials" in scanned.report["app/far"]["detail"]
    assert "'far' was not fetched" in scanned.result.sources[0].message
    assert scanned.result.sources[0].reason == ""
    assert other_site.authorizations == {""}


@pytest.mark.parametrize(
    ("sentence", "url", "reason"),
    [
        pytest.param("can't be fetched", "SITE/nowhere/.git", "SourceUnavailable", id="no-repository"),
        pytest.param("no branch, tag or commit", "SITE/empty/.git", "", id="without-the-commit"),
        pytest.param("is no URL that Codetune gives to git", "ext::touch PROOF", "", id="ext"),
        pytest.param("is no URL that Codetune gives to git", "fd::7", "", id="fd"),
        pytest.param("is no URL that Codetune gives to git", "--upload-pack=touch PROOF", "", id="upload-pack"),
        pytest.param("is no URL that Codetune gives to git", "-oProxyCommand=touch@host:x", "", id="option-like-scp"),
        pytest.param("names no host and repository", "ssh://-oProxyCommand=touch/x", "", id="option-as-host"),
        pytest.param("has credentials in it", "https://me:hunter2@example.com/x", "", id="credentials"),
        pytest.param("this operator has no `fileRoot`", "file:///etc", "", id="file-without-root"),
        pytest.param("is no URL that Codetune gives to git", "/etc", "", id="plain-path"),
        pytest.param("leads above the root of", "../../../../../etc", "", id="above-the-root"),
        pytest.param("leads above the root of", "../../../evil.example.com/x", "", id="another-host-by-dots"),
        pytest.param("behind ssh at evil.example.com", "git@evil.example.com:x/y", "", id="ssh-of-another-host"),
        pytest.param("is no URL that Codetune gives to git", '"https://x/a\\nb"', "", id="line-break"),
        pytest.param("can't be fetched", "http://127.0.0.1:1/x", "SourceUnavailable", id="closed-port"),
    ],
)
def test_a_submodule_that_can_not_be_had_is_one_file_that_can_not_be_read(
    workshop: "Workshop",
    site: "GitSite",
    sentinel: object,
    monkeypatch: pytest.MonkeyPatch,
    sentence: str,
    url: str,
    reason: str,
) -> None:
    proof = workshop.root / "proof"
    workshop.repository("empty").commit({"x": "x"})
    app = workshop.repository("app")
    address = url.replace("SITE", site.url).replace("PROOF", str(proof))
    app.commit_modules({"sub": (address, "ab" * 20)}, {"a.py": workshop.code("a")})
    monkeypatch.setattr(type(workshop), "places", replace(workshop.places, file_root=None))
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert scanned.verdicts() == {".gitmodules": "NotSelected", "a.py": "train", "sub": "Unreadable"}
    assert sentence in scanned.report["app/sub"]["detail"]
    assert scanned.result.sources[0].reason == reason
    assert "hunter2" not in str(scanned.report) + scanned.result.sources[0].message
    assert not proof.exists()


def test_a_repository_from_afar_has_no_submodules_on_this_machine(workshop: "Workshop", site: "GitSite") -> None:
    private = workshop.repository("private").commit({"p.py": workshop.code("p")})
    app = workshop.repository("app")
    app.commit_modules({"sub": ("file:///private", private)}, {"a.py": workshop.code("a")})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert scanned.verdicts()["sub"] == "Unreadable"
    assert "is on this machine" in scanned.report["app/sub"]["detail"]


@pytest.mark.parametrize(
    ("sentence", "mode", "content"),
    [
        pytest.param("can't be read", "100644", b'[submodule "x"\npath = sub', id="malformed"),
        pytest.param("can't be read", "100644", bytes(range(256)), id="noise"),
        pytest.param("more than 1048576 bytes", "100644", b"#" * (MODULES_BYTES + 1), id="huge"),
        pytest.param("is no plain file", "120000", b"../../../etc/passwd", id="a-link"),
        pytest.param("does not name it", "100644", b"", id="empty"),
        pytest.param("does not name it", "100644", b'[submodule "x"]\n\tpath = sub\n', id="no-url"),
        pytest.param("does not name it", "100644", b'[submodule "x"]\n\tpath\n\turl = a\n', id="path-without-value"),
        pytest.param("does not name it", "100644", b"[include]\n\tpath = /etc/gitconfig\n", id="include"),
        pytest.param("does not name it", "100644", b'[core]\n\tsshCommand = "touch x"\n', id="other-settings"),
    ],
)
def test_a_list_of_submodules_that_can_not_be_used_is_told(
    workshop: "Workshop", site: "GitSite", sentence: str, mode: str, content: bytes
) -> None:
    app = workshop.repository("app")
    app.commit_tree(
        (mode, app.blob(content), b".gitmodules"),
        ("100644", app.blob(b"a = 1\n"), b"a.py"),
        ("160000", "ab" * 20, b"sub"),
    )
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert (scanned.verdicts()["a.py"], scanned.verdicts()["sub"]) == ("train", "Unreadable")
    assert sentence in scanned.report["app/sub"]["detail"]


@pytest.mark.parametrize("name", [b"..", b".git", b".GIT", b"git~1", b".g\xe2\x80\x8cit"])
def test_a_submodule_in_a_place_that_no_work_tree_may_have_is_not_fetched(
    workshop: "Workshop", site: "GitSite", name: bytes
) -> None:
    app, lib = workshop.repository("app"), workshop.repository("lib").commit({"b.py": workshop.code("b")})
    modules = b'[submodule "x"]\n\tpath = "' + name + f'"\n\turl = {site.url}/lib/.git\n'.encode()
    entries = [
        ("100644", app.blob(modules), b".gitmodules"),
        ("100644", app.blob(b"a = 1\n"), b"a.py"),
        ("160000", lib, name),
    ]
    app.commit_tree(*entries)
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert list(scanned.files) == ["app/a.py"]
    assert not [asked.path for asked in site.asked if asked.path.startswith("/lib")]


def test_submodules_in_a_circle_end(workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch) -> None:
    app = workshop.repository("app")
    commit = app.commit({"a.py": workshop.code("a")})
    for _ in range(8):
        commit = app.commit_modules({"me": (f"{site.url}/app/.git", commit)})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True), files={"duplicates": "Allow"})
    deepest = "me/" * assembling.DEEPEST_MODULE
    assert scanned.verdicts()[f"{deepest}a.py"] == "train"
    assert scanned.verdicts()[f"{deepest}me"] == "Unreadable"


def test_there_is_an_end_to_the_number_of_submodules(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "MOST_MODULES", 2)
    lib = workshop.repository("lib").commit({"b.py": workshop.code("b")})
    app = workshop.repository("app")
    links = dict.fromkeys(("x", "y", "z"), (f"{site.url}/lib/.git", lib))
    app.commit_modules(links, {"a.py": workshop.code("a")})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True), files={"duplicates": "Allow"})
    assert scanned.verdicts()["y/b.py"] == "train"
    assert scanned.verdicts()["z"] == "Unreadable"
    assert "more than 2 submodules" in scanned.report["app/z"]["detail"]


def test_submodules_that_fail_count_for_the_end_too(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "MOST_MODULES", 2)
    app = workshop.repository("app")
    links = {name: (f"{site.url}/{name}/.git", "ab" * 20) for name in ("x", "y", "z")}
    app.commit_modules(links, {"a.py": workshop.code("a")})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert "more than 2 submodules" in scanned.report["app/z"]["detail"]
    assert not [asked.path for asked in site.asked if asked.path.startswith("/z")]


def test_a_host_that_can_not_be_reached_is_tried_once_and_gives_what_is_here(
    workshop: "Workshop", site: "GitSite", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembling, "MOST_MODULES", 4)
    lib = workshop.repository("lib").commit({"b.py": workshop.code("b")})
    app = workshop.repository("app")
    away = {f"away{number}": (f"http://127.0.0.1:1/x{number}", "ab" * 20) for number in range(9)}
    links = {**away, "here": (f"{site.url}/lib/.git", lib)}
    app.commit_modules(links, {"a.py": workshop.code("a")})
    scanned = workshop.scan(site.source("app/.git", name="app", submodules=True))
    assert "here/b.py" in scanned.verdicts()
    assert "can't be fetched" in scanned.report["app/away0"]["detail"]
    said = "127.0.0.1:1 could not be reached for another one, and is not tried again in this scan"
    assert all(said in scanned.report[f"app/away{number}"]["detail"] for number in range(1, 9))
    (source,) = scanned.result.sources
    assert said in source.message
    assert "6 more troubles like these" in source.message
    assert source.reason == "SourceUnavailable"


@pytest.mark.parametrize(
    ("expected", "url", "parent"),
    [
        pytest.param("https://h/a/c", "../c", "https://h/a/b", id="beside"),
        pytest.param("https://h/a/c.git", "../c.git", "https://h/a/b.git/", id="slash-at-its-end"),
        pytest.param("https://h/c", "../../c", "https://h/a/b", id="above"),
        pytest.param("https://h/a/b/c", "./c", "https://h/a/b", id="below"),
        pytest.param("https://h:8443/a/c", "../c", "https://h:8443/a/b", id="port"),
        pytest.param("git@h:a/c", "../c", "git@h:a/b", id="scp-like"),
        pytest.param("git@h:c", "../c", "git@h:b", id="scp-like-at-the-root"),
        pytest.param("git@h:/srv/c", "../c", "git@h:/srv/b", id="scp-like-absolute"),
        pytest.param("ssh://git@h:22/a/c", "../c", "ssh://git@h:22/a/b", id="ssh"),
        pytest.param("https://other/x", "https://other/x", "https://h/a/b", id="absolute"),
    ],
)
def test_a_url_counts_from_the_parents_as_git_counts(expected: str, url: str, parent: str) -> None:
    assert find_remote(url, read_url(parent, None), None).url == expected


@pytest.mark.parametrize(
    ("url", "parent"),
    [
        pytest.param("../../../evil/x", "https://h/a/b", id="https"),
        pytest.param("../../x", "git@h:a", id="scp-like"),
        pytest.param("./../../../x", "ssh://git@h/a/b", id="ssh"),
    ],
)
def test_no_dots_lead_to_another_host(url: str, parent: str) -> None:
    with pytest.raises(UnsupportedSource, match="leads above the root"):
        find_remote(url, read_url(parent, None), None)
