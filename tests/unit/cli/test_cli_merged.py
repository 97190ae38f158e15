"""`kubectl codetune download --merged`: asks, waits for what the operator says, and fetches a whole verified model."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import MergedManifest
from codetune_api.digests import FileEntry
from codetune_cli.main import main

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
RUN = "team/finetunes/coder/uid-1"
FILES = {"config.json": b"{}", "model-00001-of-00002.safetensors": bytes(range(256)) * 400, "tokenizer.json": b"[]"}
STATUS: Obj = {
    "phase": "Succeeded",
    "bestCheckpoint": "step-000010",
    "latestCheckpoint": "step-000010",
    "checkpoints": [
        {
            "name": "step-000010",
            "step": 10,
            "uri": f"pvc://codetune-artifacts/{RUN}/checkpoints/step-000010",
            "digest": DIGEST,
        }
    ],
}


def write_merged(root: Path, digest: str = DIGEST, more: dict[str, FileEntry] | None = None) -> Path:
    """What the Job leaves in the store."""
    folder = root / RUN / "merged" / "step-000010"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    entries = {
        name: FileEntry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for name, content in FILES.items()
    }
    manifest = MergedManifest(
        checkpoint="step-000010", adapter_digest=digest, base_model="hf://a/b", files={**entries, **(more or {})}
    )
    (folder / "MANIFEST.json").write_text(manifest.model_dump_json(by_alias=True))
    return folder


@dataclass
class Operator:
    """What the operator does while the command waits: one entry for each look."""

    desk: "Desk"
    answers: list[Callable[[], None]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def sleep(self, _: float) -> None:
        """In the place of time."""
        self.requests.append(self.desk.annotations("finetunes", "coder").get("codetune.dev/merge", ""))
        if self.answers:
            self.answers.pop(0)()

    def say(self, phase: str, message: str = "m", request: str = "") -> Callable[[], None]:
        """Set `status.merged`."""

        def answer() -> None:
            merged = {
                "request": request or self.requests[-1],
                "phase": phase,
                "checkpoint": "step-000010",
                "digest": DIGEST,
                "message": message,
            }
            path = "/apis/codetune.dev/v1alpha1/namespaces/team/finetunes/coder/status"
            body = {"status": {"merged": merged}}
            self.desk.connection.ask("PATCH", path, body, "application/merge-patch+json")

        return answer


@pytest.fixture
def operator(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> Operator:
    """A FineTune with a checkpoint, and who looks after it."""
    desk.define()
    made = Operator(desk)
    spec = {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}
    desk.make("FineTune", "finetunes", "coder", spec, STATUS)
    monkeypatch.setattr("codetune_cli.waiting.time.sleep", made.sleep)
    return made


@pytest.fixture
def run(desk: "Desk", tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run(...)` downloads; returns exit code, stdout and stderr as one line."""

    def call(*more: str) -> tuple[int, str, str]:
        where = ["--kubeconfig", str(desk.kubeconfig), "-n", "team", "--timeout", "5"]
        code = main(["download", "coder", "--merged", "-o", str(tmp_path / "out"), *where, *more])
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    return call


def test_the_model_is_asked_for_and_comes_whole(operator: Operator, run: Any, tmp_path: Path) -> None:
    write_merged(operator.desk.root)
    operator.answers = [operator.say("Merging", "Job x merges."), operator.say("Ready")]
    code, told, said = run()
    assert code == 0, said
    assert operator.requests[0].startswith("step-000010@")
    assert "Waiting for the merged model: Merging: Job x merges." in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "README.md"} == FILES
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model_relation: finetune" in card
    assert "step-000010 merged in" in told


def test_one_that_is_there_is_not_asked_for_again(operator: Operator, run: Any) -> None:
    write_merged(operator.desk.root)
    operator.say("Ready", request="step-000010@before")()
    code, _, said = run("--checkpoint", "step-10")
    assert (code, operator.requests) == (0, []), said
    assert "codetune.dev/merge" not in operator.desk.annotations("finetunes", "coder")


def test_a_request_that_fails_says_why(operator: Operator, run: Any) -> None:
    operator.answers = [operator.say("Failed", "OutOfMemory: Raise spec.resources.memory.")]
    code, _, said = run()
    assert (code, "OutOfMemory: Raise spec.resources.memory." in said) == (1, True)


def test_a_former_failure_is_not_taken_for_the_answer(operator: Operator, run: Any) -> None:
    write_merged(operator.desk.root)
    operator.say("Failed", request="step-000010@before")()
    operator.answers = [lambda: None, operator.say("Ready")]
    code, _, said = run()
    assert code == 0, said
    assert "the operator has not seen the request yet." in said


def test_a_request_that_nobody_takes_up_is_told(operator: Operator, run: Any) -> None:
    code, _, said = run("--timeout", "0")
    assert (code, "Does the operator run" in said) == (1, True)


@pytest.mark.parametrize(
    ("expected", "damage"),
    [
        pytest.param("SHA-256", lambda folder: (folder / "config.json").write_bytes(b"[]"), id="other content"),
        pytest.param("is not valid", lambda folder: (folder / "MANIFEST.json").write_text("{}"), id="no manifest"),
        pytest.param("There is no file", lambda folder: (folder / "config.json").unlink(), id="a file is gone"),
    ],
)
def test_a_damaged_model_is_refused(expected: str, damage: Any, operator: Operator, run: Any, tmp_path: Path) -> None:
    damage(write_merged(operator.desk.root))
    operator.say("Ready", request="x")()
    code, _, said = run()
    assert (code, expected in said) == (1, True), said
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_manifest_that_names_a_file_elsewhere_is_refused(operator: Operator, run: Any, tmp_path: Path) -> None:
    write_merged(operator.desk.root, more={"../escape": FileEntry(sha256="0" * 64, bytes=1)})
    operator.say("Ready", request="x")()
    code, _, said = run()
    assert (code, "is no model" in said) == (1, True), said
    assert not list(tmp_path.rglob("escape"))


def test_a_model_with_another_adapter_in_it_is_refused(operator: Operator, run: Any) -> None:
    write_merged(operator.desk.root, OTHER)
    operator.say("Ready", request="x")()
    code, _, said = run()
    assert (code, f"status says {DIGEST}" in said) == (1, True), said


def test_a_cut_goes_on_where_it_was(operator: Operator, run: Any, tmp_path: Path) -> None:
    write_merged(operator.desk.root)
    operator.say("Ready", request="x")()
    operator.desk.line.cuts = [("", 0)] * 3 + [("back", 40_000), ("back", 30_000)]
    code, _, said = run()
    assert code == 0, said
    assert "Going on in" in said
    weights = "model-00001-of-00002.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == FILES[weights]


@pytest.mark.parametrize("name", ["README.md", "config.json"])
def test_a_file_that_no_download_has_brought_is_left_alone(
    name: str, operator: Operator, run: Any, tmp_path: Path
) -> None:
    write_merged(operator.desk.root)
    operator.say("Ready", request="x")()
    mine = tmp_path / "out" / name
    mine.parent.mkdir()
    mine.write_text("mine")
    code, _, said = run()
    assert (code, f"{name} is there already and is not of a download" in said) == (1, True), said
    assert (mine.read_text(), len(list(mine.parent.iterdir()))) == ("mine", 1)


def test_a_download_takes_the_place_of_the_one_before(operator: Operator, run: Any, tmp_path: Path) -> None:
    folder = write_merged(operator.desk.root)
    operator.say("Ready", request="x")()
    assert run()[0] == 0
    shutil.rmtree(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FILES, "config.json", b'{"newer": true}')
        write_merged(operator.desk.root)
    assert run()[0] == 0
    assert (tmp_path / "out" / "config.json").read_bytes() == b'{"newer": true}'


def test_files_of_a_download_that_was_cut_are_kept(operator: Operator, run: Any, tmp_path: Path) -> None:
    write_merged(operator.desk.root)
    operator.say("Ready", request="x")()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_bytes(FILES["config.json"])
    assert run()[0] == 0
