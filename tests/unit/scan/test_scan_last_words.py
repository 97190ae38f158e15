"""How a run ends: exit code, one line for a person, the termination log; and that a killed scan leaves no child."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from codetune_api.contracts import ENV_TERMINATION_LOG, ScanConfig, Terminated
from codetune_trainer.__main__ import main
from codetune_trainer.config import inside, load_config, load_places
from codetune_trainer.errors import (
    AuthenticationFailed,
    EmptyDataset,
    InvalidParameters,
    ModelUnavailable,
    RevisionNotFound,
    SourceUnavailable,
    TrainerError,
    render_terminated,
    run_to_exit_code,
    translate,
)

if TYPE_CHECKING:
    from unit.scan.conftest import Listen, Workshop


def fail_with(error: Exception) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("exit_code", "reason", "error"),
    [
        pytest.param(64, "EmptyDataset", EmptyDataset("m"), id="empty-dataset"),
        pytest.param(64, "RevisionNotFound", RevisionNotFound("m"), id="revision"),
        pytest.param(64, "AuthenticationFailed", AuthenticationFailed("m"), id="authentication"),
        pytest.param(1, "SourceUnavailable", SourceUnavailable("m"), id="source"),
        pytest.param(1, "SourceUnavailable", ModelUnavailable("m"), id="hub"),
        pytest.param(1, "DiskFull", OSError(errno.ENOSPC, "no space", "/x"), id="disk-full"),
        pytest.param(1, "DiskFull", OSError(errno.EDQUOT, "quota"), id="quota"),
        pytest.param(64, "OutOfMemory", MemoryError(), id="memory"),
        pytest.param(1, "InternalError", ValueError("boo"), id="our-own-fault"),
    ],
)
def test_a_failure_becomes_an_exit_code_and_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], exit_code: int, reason: str, error: Exception
) -> None:
    log = tmp_path / "termination"
    assert run_to_exit_code(fail_with(error), log) == exit_code
    said = Terminated.model_validate_json(log.read_bytes())
    assert said.reason == reason
    assert said.message
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{reason}: ")


def test_a_run_that_ends_well_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_to_exit_code(lambda: 0, tmp_path / "termination") == 0
    assert not (tmp_path / "termination").exists()
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_ours_is_printed_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    run_to_exit_code(fail_with(ZeroDivisionError("x")), None)
    assert "Traceback" in capsys.readouterr().err


def test_a_termination_log_that_can_not_be_written_is_only_mentioned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_to_exit_code(fail_with(EmptyDataset("m")), tmp_path / "no" / "such" / "folder") == 64
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        pytest.param("m" * 50_000, "the hint", id="long-message"),
        pytest.param("m", "h" * 50_000, id="long-hint"),
        pytest.param("\N{PILE OF POO}" * 5000, "\x00" * 5000, id="characters-that-take-more-room"),
        pytest.param("\ud800" * 4000, "the hint", id="lone-surrogates"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_last_words_fit_what_the_kubelet_keeps(message: str, hint: str) -> None:
    data = render_terminated(TrainerError(message, hint))
    assert len(data) <= 4096
    assert json.loads(data)["reason"] == "InternalError"
    if len(hint) < 100:
        assert json.loads(data).get("hint", "") == hint


def test_our_own_failures_are_not_translated() -> None:
    error = EmptyDataset("m")
    assert translate(error) is error


@pytest.mark.parametrize(
    ("program", "field"),
    [
        pytest.param("scan", "files.quality.resources.memory", id="a Project has no spec.resources"),
        pytest.param("train", "spec.resources.memory", id="a FineTune has"),
    ],
)
def test_who_is_short_of_memory_hears_of_a_field_that_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, field: str
) -> None:
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "termination"))
    monkeypatch.setattr("codetune_trainer.__main__._load", lambda _program: fail_with(MemoryError()))
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([program]) == 64
    finally:
        signal.signal(signal.SIGTERM, before)
    assert field in Terminated.model_validate_json((tmp_path / "termination").read_bytes()).hint.split()[1]


@pytest.mark.parametrize(
    ("word", "content"),
    [
        pytest.param("JSON", "{", id="no-json"),
        pytest.param("nonce", "{}", id="missing-fields"),
        pytest.param("surprise", '{"surprise": 1}', id="unknown-field"),
    ],
)
def test_a_configuration_that_is_wrong_names_its_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, content: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    monkeypatch.setenv("CODETUNE_CONFIG", str(tmp_path / "config.json"))
    with pytest.raises(InvalidParameters, match=word):
        load_config(ScanConfig)


def test_a_variable_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CODETUNE_STORE", raising=False)
    with pytest.raises(InvalidParameters, match="CODETUNE_STORE"):
        load_places()


@pytest.mark.parametrize("path", ["", ".", "/etc", "../x", "a/../../x", "a\0b"])
def test_a_path_that_leaves_its_root_is_refused(path: str) -> None:
    with pytest.raises(InvalidParameters, match="output"):
        inside(Path("/store"), path, "output")


def start(program: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "codetune_trainer", program]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def environment_of(workshop: "Workshop", config: ScanConfig) -> dict[str, str]:
    (workshop.root / "config.json").write_text(json.dumps(config.to_wire()))
    return {
        "CODETUNE_CONFIG": str(workshop.root / "config.json"),
        "CODETUNE_STORE": str(workshop.places.store),
        "CODETUNE_SCRATCH": str(workshop.places.scratch),
        "CODETUNE_FILE_ROOT": str(workshop.places.file_root),
        "CODETUNE_TERMINATION_LOG": str(workshop.root / "termination"),
    }


def test_the_program_ends_with_64_where_a_retry_is_pointless(workshop: "Workshop") -> None:
    workshop.repository()
    with start("scan", environment_of(workshop, workshop.config())) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 64
    assert said.splitlines() == [
        "EmptyRepository: file:///repo has no commit. Push a commit to it, or take the source out."
    ]
    assert Terminated.model_validate_json((workshop.root / "termination").read_bytes()).reason == "EmptyRepository"


def test_the_program_prints_its_version() -> None:
    command = [sys.executable, "-m", "codetune_trainer", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("codetune-trainer 0.")


def test_scanning_never_waits_for_torch() -> None:
    code = "import sys, codetune_trainer.__main__, codetune_trainer.scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


class SilentHandler(BaseHTTPRequestHandler):
    """Takes a question and never answers it."""

    asked: threading.Event
    release: threading.Event

    def do_GET(self) -> None:
        self.asked.set()
        self.release.wait(60)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_a_terminated_scan_ends_with_143_and_leaves_no_git_behind(workshop: "Workshop", listen: "Listen") -> None:
    asked, release = threading.Event(), threading.Event()
    handler = type("Handler", (SilentHandler,), {"asked": asked, "release": release})
    with listen(handler) as url:
        config = workshop.config({"name": "repo", "git": {"url": f"{url}/repo.git"}})
        with start("scan", environment_of(workshop, config)) as process:
            assert asked.wait(60)
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 143
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        release.set()
