"""`kubectl codetune` as a person types it, against the local API server and a store service; no operator runs."""

import hashlib
import json
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import CheckpointManifest
from codetune_api.digests import FileEntry
from codetune_cli.main import main
from codetune_cli.showing import printable, say_bytes
from codetune_cli.waiting import describe_store

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
REVISION = "sha256:" + "b" * 64
UPLOAD = {"name": "code", "upload": {}}
GIT = {"name": "app", "git": {"url": "https://example.org/app.git"}}


@pytest.fixture
def run(desk: "Desk", capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command. Returns: exit code, what it printed, what it said."""
    desk.define()

    def do(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, "--kubeconfig", str(desk.kubeconfig), "-n", "team", "--timeout", "0"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return do


def test_an_upload_has_the_project_scan_it_and_the_same_again_does_not(desk: "Desk", run: Any, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/a.py").write_text("a = 1\n")
    desk.make("Project", "projects", "shop", {"sources": [GIT, UPLOAD]})
    code, told, said = run("upload", "shop", str(tmp_path / "work"))
    assert (code, "Sending 6 B of 1 files" in said) == (0, True)
    version = json.loads((desk.upload / "CURRENT.json").read_text())["revision"]
    assert version in told
    assert desk.annotations("projects", "shop")["codetune.dev/rescan"].startswith(version[7:19])

    status = {"phase": "Ready", "sources": [{"name": "code", "commit": version[7:]}]}
    path = "/apis/codetune.dev/v1alpha1/namespaces/team/projects/shop"
    desk.connection.ask("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")
    before = desk.annotations("projects", "shop")
    code, told, _ = run("upload", "shop", str(tmp_path / "work"))
    assert (code, "very files already" in told) == (0, True)
    assert desk.annotations("projects", "shop") == before

    (damaged,) = (path for path in (desk.upload / "blobs").rglob("*") if path.is_file())
    damaged.unlink()  # as the scan does
    code, told, _ = run("upload", "shop", str(tmp_path / "work"))
    assert (code, "scans them now" in told) == (0, True)
    assert desk.annotations("projects", "shop") != before


MISTAKES: dict[str, tuple[str, list[str]]] = {
    "no such project": ("There are: plain, shop, two", ["upload", "web", "."]),
    "no upload source": ("      upload: {}", ["upload", "plain", "."]),
    "no upload source: what there is": ("its sources are: app (git)", ["upload", "plain", "."]),
    "several upload sources": ("--source one or two", ["upload", "two", "."]),
    "another source": ("has no upload source 'app'; it has: code", ["upload", "shop", ".", "--source", "app"]),
    "no such path": ("There is no file or folder", ["upload", "shop", "/nowhere/at/all"]),
    "no dataset yet": ("has no dataset yet. UploadMissing: Nothing was uploaded", ["files", "shop"]),
    "no such run": ("There is no FineTune 'x'", ["download", "x"]),
    "no checkpoint yet": ("has no checkpoint yet", ["download", "fresh"]),
}


@pytest.mark.parametrize("row", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_cure(row: tuple[str, list[str]], desk: "Desk", run: Any) -> None:
    expected, arguments = row
    missing = {"type": "Ready", "status": "False", "reason": "UploadMissing", "message": "Nothing was uploaded",
               "lastTransitionTime": "2026-11-23T10:00:00Z"}  # fmt: skip
    desk.make("Project", "projects", "shop", {"sources": [GIT, UPLOAD]}, {"conditions": [missing]})
    desk.make("Project", "projects", "plain", {"sources": [GIT]})
    desk.make("Project", "projects", "two", {"sources": [{**UPLOAD, "name": "one"}, {**UPLOAD, "name": "two"}]})
    desk.make("FineTune", "finetunes", "fresh", {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"})
    code, _, said = run(*arguments)
    assert (code, expected in said) == (1, True), said


def test_a_cluster_without_codetune_says_so(desk: "Desk", capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["files", "shop", "--kubeconfig", str(desk.kubeconfig)]) == 1
    assert "install the Helm chart" in capsys.readouterr().err


def kubeconfig(server: str = "http://127.0.0.1:1", **more: Any) -> bytes:
    whole = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "hunter2"}}],
        "current-context": "x",
        **more,
    }
    return json.dumps(whole).encode()


KUBECONFIGS: dict[str, tuple[str, bytes]] = {
    "none": ("The kubeconfig can't be used", b"nothing: true\n"),
    "empty": ("is empty", b""),
    "malformed": ("it is no YAML of a kubeconfig's form", b"a: [b\n"),
    "tabs": ("it is no YAML of a kubeconfig's form", b"a: b\n\tc: d\n"),
    "a list": ("it is no YAML of a kubeconfig's form", b"- a\n"),
    "a word": ("it is no YAML of a kubeconfig's form", b"hello\n"),
    "binary": ("it is no YAML of a kubeconfig's form", b"\xff\xfe\x00"),
    "no server": ("its cluster's server '' is no URL", kubeconfig("")),
    "a server that is no URL": ("'cluster.example.org:6443' is no URL", kubeconfig("cluster.example.org:6443")),
    "no such context": ("Expected object with name other", kubeconfig(**{"current-context": "other"})),
    "nobody listens": ("http://127.0.0.1:1 can't be reached", kubeconfig()),
}


@pytest.mark.parametrize("row", KUBECONFIGS.values(), ids=KUBECONFIGS.keys())
def test_a_kubeconfig_that_leads_nowhere_says_so(
    row: tuple[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, content = row
    (tmp_path / "config").write_bytes(content)
    assert main(["files", "shop", "--kubeconfig", str(tmp_path / "config")]) == 1
    said = capsys.readouterr().err
    assert expected in " ".join(said.split())
    assert "hunter2" not in said


STATUS = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
ANSWERS: dict[str, tuple[str, int, str]] = {
    "a web page": ("answers with HTTP 404 and not as an API server does", 404, "<html>Not Found</html>"),
    "a login page": (
        "answers with something else than JSON and not as an API server does",
        200,
        "<html>Sign in</html>",
    ),
    "a group that it does not have": ("install the Helm chart first", 404, "404 page not found\n"),
    "a token that ran out": (
        "Unauthorized: the credentials of the kubeconfig are refused or have run out",
        401,
        json.dumps(STATUS | {"message": "Unauthorized"}),
    ),
    "no right": (
        "can't be read: projects is forbidden",
        403,
        json.dumps(STATUS | {"message": "projects is forbidden"}),
    ),
}


@pytest.mark.parametrize("row", ANSWERS.values(), ids=ANSWERS.keys())
def test_what_answers_instead_of_a_cluster_with_codetune_is_told(
    row: tuple[str, int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, status, body = row

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        (tmp_path / "config").write_bytes(kubeconfig(f"http://127.0.0.1:{running.server_address[1]}"))
        code = main(["files", "shop", "--kubeconfig", str(tmp_path / "config")])
        running.shutdown()
        thread.join()
    assert (code, expected in " ".join(capsys.readouterr().err.split())) == (1, True)


def test_a_store_service_that_does_not_come_says_what_it_waits_for(desk: "Desk", run: Any) -> None:
    desk.make("Project", "projects", "shop", {"sources": [UPLOAD]})
    services = "/api/v1/namespaces/team/services/codetune-store"
    desk.connection.ask("DELETE", services)
    code, _, said = run("upload", "shop", __file__)
    assert code == 1
    assert "did not come within 0 s: the operator has not made it yet" in " ".join(said.split())


PODS: dict[str, tuple[str, Obj]] = {
    "an image that can't be had": (
        "ErrImagePull: no such image",
        {"containerStatuses": [{"name": "store", "image": "x", "imageID": "", "ready": False, "restartCount": 0,
                                "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}]},
    ),
    "no node": (
        "no node takes pod codetune-store-x: 0/1 nodes",
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
    ),
    "nothing yet": ("its pod is starting", {}),
}  # fmt: skip


@pytest.mark.parametrize("row", PODS.values(), ids=PODS.keys())
def test_what_holds_up_the_store_service_is_told(row: tuple[str, Obj], desk: "Desk") -> None:
    expected, status = row
    template = {
        "metadata": {"labels": {"app.kubernetes.io/instance": "codetune-store"}},
        "spec": {"containers": [{"name": "store", "image": "x"}]},
    }
    selector = {"matchLabels": template["metadata"]["labels"]}  # type: ignore[index]
    deployment = {"metadata": {"name": "codetune-store"}, "spec": {"selector": selector, "template": template}}
    desk.connection.ask("POST", "/apis/apps/v1/namespaces/team/deployments", deployment)
    pod = {**template, "metadata": {**template["metadata"], "name": "codetune-store-x"}}
    desk.connection.ask("POST", "/api/v1/namespaces/team/pods", pod)
    merge = "application/merge-patch+json"
    desk.connection.ask("PATCH", "/api/v1/namespaces/team/pods/codetune-store-x/status", {"status": status}, merge)
    assert expected in describe_store(desk.connection)


def write_report(desk: "Desk", *rows: Obj) -> None:
    folder = desk.root / "team/projects/shop" / REVISION[7:]
    folder.mkdir(parents=True)
    base = {"source": "app", "type": "Python", "bytes": 10, "lines": 2, "decision": "train", "reason": "", "detail": ""}
    (folder / "report.jsonl").write_text("".join(json.dumps({**base, **row}) + "\n" for row in rows))
    desk.make("Project", "projects", "shop", {"sources": [GIT]}, {"phase": "Ready", "revision": REVISION})


def test_files_are_shown_as_a_table_that_no_name_can_break(desk: "Desk", run: Any) -> None:
    detail = {"decision": "rejected", "reason": "LongLines", "detail": "line 1\nhas \x1b[2J"}
    write_report(desk, {"path": "app/a.py"}, {"path": "app/\x1b[31mred\nline\u202e.py", **detail})
    code, told, _ = run("files", "shop")
    header, first, second = told.splitlines()
    assert code == 0
    assert header.split() == ["DECISION", "REASON", "TYPE", "LINES", "BYTES", "PATH"]
    assert first.split() == ["train", "-", "Python", "2", "10", "app/a.py"]
    assert "\x1b" not in second
    assert "\u202e" not in second
    assert second.startswith("rejected  LongLines")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rejected", "*.py"],
        ["*.py", "--rejected"],
        ["--reason", "Binary"],
        ["--type", "python", "b.py"],
        ["--rejected"],
    ],
    ids=" ".join,
)
def test_files_can_be_asked_for_in_any_order_of_words(arguments: list[str], desk: "Desk", run: Any) -> None:
    write_report(desk, {"path": "app/a.py"}, {"path": "app/b.py", "decision": "rejected", "reason": "Binary"})
    code, told, _ = run("files", "shop", *arguments, "-o", "json")
    assert (code, [json.loads(line)["path"] for line in told.splitlines()]) == (0, ["app/b.py"])
    assert "codetune.dev/store-until" in desk.annotations("projects", "shop")


@pytest.mark.parametrize(
    "arguments", [["--held-out"], ["--held-out", "*.py"], ["--reason", "HeldOut"], ["--accepted", "b.py"]], ids=" ".join
)
def test_held_out_files_can_be_asked_for(arguments: list[str], desk: "Desk", run: Any) -> None:
    held_out = {"decision": "holdout", "reason": "HeldOut", "detail": "chosen by its content"}
    write_report(desk, {"path": "app/a.py"}, {"path": "app/b.py", **held_out}, {"path": "c", "decision": "rejected"})
    code, told, _ = run("files", "shop", *arguments)
    assert (code, [line.split()[:2] for line in told.splitlines()[1:]]) == (0, [["holdout", "HeldOut"]])
    assert told.endswith("app/b.py  (chosen by its content)\n")


@pytest.mark.parametrize("other", ["--rejected", "--accepted"])
def test_only_one_decision_can_be_asked_for(other: str, run: Any) -> None:
    with pytest.raises(SystemExit):
        run("files", "shop", "--held-out", other)


def test_no_match_is_said_aside(desk: "Desk", run: Any) -> None:
    write_report(desk, {"path": "app/a.py"})
    assert run("files", "shop", "--rejected", "-o", "json") == (0, "", "No file matches.\n")


def test_words_too_many_are_refused(run: Any) -> None:
    with pytest.raises(SystemExit):
        run("files", "shop", "a", "b")


# -- download

WEIGHTS = bytes(range(256)) * 400


def make_run(desk: "Desk", weights: bytes = WEIGHTS, **changes: Any) -> Path:
    """A FineTune with one checkpoint. Returns: the checkpoint's folder."""
    contents = dict(zip(sorted(ADAPTER_FILES), (b'{"r": 8}', weights), strict=True))
    folder = desk.root / "team/finetunes/coder/uid-1/checkpoints/step-000010"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    entries = {name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
               for name, content in contents.items()}  # fmt: skip
    manifest = CheckpointManifest(
        name="step-000010", step=10, base_model="hf://a/b", rank=8, dataset_revision=REVISION, created_at="",
        adapter=changes.pop("adapter", entries), state={},
    )  # fmt: skip
    (folder / "MANIFEST.json").write_text(manifest.model_dump_json(by_alias=True))
    uri = "pvc://codetune-artifacts/team/finetunes/coder/uid-1/checkpoints/step-000010"
    checkpoint = {"name": "step-000010", "step": 10, "uri": uri, "digest": manifest.digest(), **changes}
    status = {"checkpoints": [checkpoint], "bestCheckpoint": "step-000010", "latestCheckpoint": "step-000010"}
    desk.make("FineTune", "finetunes", "coder", {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}, status)
    return folder


@pytest.mark.parametrize(
    "wanted", [[], *(["--checkpoint", name] for name in ("latest", "step-000010", "step-10"))], ids=str
)
def test_an_adapter_is_downloaded_whole(wanted: list[str], desk: "Desk", run: Any, tmp_path: Path) -> None:
    folder = make_run(desk)
    code, told, said = run("download", "coder", *wanted, "-o", str(tmp_path / "out"))
    assert (code, said) == (0, "")
    assert "step-000010" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*ADAPTER_FILES, "README.md"}
    assert "library_name: peft" in (tmp_path / "out" / "README.md").read_text()
    for name in ADAPTER_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
        assert stat.S_ISREG((tmp_path / "out" / name).lstat().st_mode)


def test_a_download_that_is_cut_goes_on_where_it_was(
    desk: "Desk", run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(desk)
    monkeypatch.setattr("codetune_cli.waiting.time.sleep", lambda _: None)
    sizes: list[str] = []
    send = type(desk.connection).send

    def watch(connection: Any, method: str, path: str, **more: Any) -> Any:
        sizes.append((more.get("headers") or {}).get("Range", ""))
        return send(connection, method, path, **more)

    monkeypatch.setattr(type(desk.connection), "send", watch)
    desk.line.cuts = [("", 0)] * 3 + [("back", 40_000), ("back", 30_000)]
    code, _, said = run("download", "coder", "-o", str(tmp_path / "out"))
    assert code == 0, said
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == WEIGHTS
    begins = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in sizes if asked]
    assert begins[-1] > begins[-2] > begins[-3] == 0


DAMAGE: dict[str, tuple[str, Any]] = {
    "a byte that changed": ("SHA-256", lambda path: path.write_bytes(b"\1" + WEIGHTS[1:])),
    "more bytes": ("has more than", lambda path: path.write_bytes(WEIGHTS + b"more")),
    "a file that is gone": ("There is no file", lambda path: path.unlink()),
    "a manifest that changed": ("status says", lambda path: _rewrite(path.with_name("MANIFEST.json"))),
    "a manifest that is none": ("is not valid", lambda path: path.with_name("MANIFEST.json").write_text("{}")),
}


def _rewrite(path: Path) -> None:
    manifest = json.loads(path.read_text())
    manifest["adapter"]["adapter_model.safetensors"]["sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("row", DAMAGE.values(), ids=DAMAGE.keys())
def test_an_adapter_that_is_not_what_it_should_be_is_not_kept(
    row: tuple[str, Any], desk: "Desk", run: Any, tmp_path: Path
) -> None:
    expected, damage = row
    damage(make_run(desk) / "adapter_model.safetensors")
    code, _, said = run("download", "coder", "-o", str(tmp_path / "out"))
    assert (code, expected in said) == (1, True), said
    assert not (tmp_path / "out/adapter_model.safetensors").exists()


def test_a_manifest_that_names_other_files_is_refused(desk: "Desk", run: Any, tmp_path: Path) -> None:
    make_run(desk, adapter={"../../escape": FileEntry(sha256="0" * 64, bytes=1)})
    code, _, said = run("download", "coder", "-o", str(tmp_path / "out"))
    assert (code, "is no adapter" in said) == (1, True)
    assert not list(tmp_path.rglob("escape"))


TEXTS = {"a\x1b[31mb": "a\\x1b[31mb", "two\nlines": "two\nlines", "größe ✓": "größe ✓", "\u202eevil": "\\u202eevil"}


@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_what_could_steer_a_terminal_is_escaped(text: str) -> None:
    assert printable(text) == TEXTS[text]


def test_sizes_are_for_people() -> None:
    assert [say_bytes(size) for size in (0, 999, 1500, 2.5e6, 7.1e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "7100.0 GB",
    ]
