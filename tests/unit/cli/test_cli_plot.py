"""`kubectl codetune plot`: the losses of a run as a chart, as points, and anew until the run has ended."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.finetune import FineTune
from codetune_cli.charting import describe_run, draw_chart
from codetune_cli.main import main

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
SPEC = {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}
POINTS = [
    {"step": 10, "loss": 2.5, "holdoutLoss": None},
    {"step": 20, "loss": 2.0, "holdoutLoss": 2.2},
    {"step": 30, "loss": 1.5, "holdoutLoss": None},
    {"step": 40, "loss": 1.4, "holdoutLoss": 1.6},
]
BEST = {"name": "step-000040", "step": 40, "holdoutLoss": 1.6, "uri": "pvc://a/b", "digest": "sha256:" + "1" * 64}
RUNNING: Obj = {
    "phase": "Running",
    "progress": {"step": 40, "totalSteps": 100, "percent": 40, "stage": "Training"},
    "remaining": "12m",
    "lossHistory": POINTS,
    "bestCheckpoint": BEST["name"],
    "checkpoints": [BEST],
}


def make(status: Obj, name: str = "coder") -> FineTune:
    wire = {"apiVersion": "codetune.dev/v1alpha1", "kind": "FineTune", "metadata": {"name": name}, "spec": SPEC}
    return FineTune.from_wire({**wire, "status": status})


def condition(reason: str, message: str) -> list[Obj]:
    return [{"type": "Ready", "status": "False", "reason": reason, "message": message,
             "lastTransitionTime": "2026-11-23T10:00:00Z"}]  # fmt: skip


@pytest.fixture
def run(desk: "Desk", capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(...)` plots; returns exit code, stdout, and stderr as one line."""
    desk.define()

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["plot", *words, "--kubeconfig", str(desk.kubeconfig), "-n", "team"])
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    return call


def test_a_chart_can_be_read_without_colours_and_without_a_terminal(desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    code, told, said = run("coder")
    assert (code, said) == (0, "")
    title, *chart, progress, best = told.splitlines()
    assert title.strip() == "loss by step: · training, o held-out, * best checkpoint"
    assert progress == "coder: Running at step 40 of 100 (40 %), 12m to go"
    assert best == "Best checkpoint: step-000040, held-out loss 1.6000"
    assert told.replace("\n", "").isprintable()
    assert max(len(line) for line in told.splitlines()) == 80
    assert chart[-1].split() == ["10", "18", "25", "32", "40"]
    drawn = "".join(chart)
    assert (drawn.count("o"), drawn.count("*")) == (1, 1)


def test_the_losses_stand_where_they_belong() -> None:
    lines = draw_chart(make(RUNNING), 80, 20).splitlines()
    inside = lines[2:18]
    rows = [row for row, line in enumerate(inside) if "·" in line]
    (held_out,) = (row for row, line in enumerate(inside) if "o" in line)
    (best,) = (row for row, line in enumerate(inside) if "*" in line)
    assert rows[0] < held_out < best <= rows[-1]  # 2.5, 2.2, 1.6, 1.4 from above
    assert inside[held_out].index("o") < inside[best].index("*")


SHAPES: dict[str, list[Obj]] = {
    "one point": [{"step": 1, "loss": 2.0}],
    "the same loss all the time": [{"step": step, "loss": 2.0} for step in range(5)],
    "a loss that went through the roof": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1e12}],
    "losses that hardly differ": [{"step": 1, "loss": 1.00001}, {"step": 2, "loss": 1.00002}],
    "as many as there may be": [{"step": 100_000 * step, "loss": 100 / (step + 1)} for step in range(100)],
    "held-out losses only at the end": [{"step": 1, "loss": 3.0}, {"step": 9, "loss": 2.0, "holdoutLoss": 2.5}],
}


@pytest.mark.parametrize("points", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize(("width", "height"), [(80, 20), (40, 8), (120, 30)])
def test_every_run_has_a_chart(points: list[Obj], width: int, height: int) -> None:
    *chart, _ = draw_chart(make({"lossHistory": points}), width, height).splitlines()
    assert len(chart) == height
    assert max(map(len, chart)) <= width


DESCRIBED: dict[str, tuple[str, Obj]] = {
    "nothing but a phase": ("coder: Pending", {}),
    "between two steps": (
        "coder: Running at step 40 of 100 (40 %), Evaluating, 12m to go",
        {**RUNNING, "checkpoints": [], "progress": {**RUNNING["progress"], "stage": "Evaluating"}},
    ),
    "at its end": (
        "coder: Succeeded at step 40 of 100 (40 %)",
        {**RUNNING, "checkpoints": [], "phase": "Succeeded"},
    ),
    "failed": (
        "coder: Failed at step 40 of 100 (40 %): OutOfMemory: It took 9 GiB.",
        {**RUNNING, "checkpoints": [], "phase": "Failed",
         "failure": {"reason": "OutOfMemory", "message": "It took 9 GiB."}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", DESCRIBED.values(), ids=DESCRIBED.keys())
def test_below_the_chart_stands_how_far_the_run_is(row: tuple[str, Obj]) -> None:
    expected, status = row
    assert list(describe_run(make(status))) == [expected]


def test_a_run_without_points_says_why(desk: "Desk", run: Run) -> None:
    waiting = {"conditions": condition("WaitingForData", "Project shop is scanned")}
    desk.make("FineTune", "finetunes", "coder", SPEC, waiting)
    code, told, said = run("coder", "-o", "json")
    assert (code, told) == (1, "")
    assert said == "error: FineTune 'coder' has no losses to plot. WaitingForData: Project shop is scanned"


def test_a_run_that_is_not_there_names_those_that_are(desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    code, _, said = run("codr")
    assert (code, "There are: coder." in said) == (1, True)


def test_points_come_for_programs_too(desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    assert run("coder", "-o", "csv")[1].splitlines() == [
        "step,loss,holdoutLoss", "10,2.5,", "20,2.0,2.2", "30,1.5,", "40,1.4,1.6",
    ]  # fmt: skip
    code, told, _ = run("coder", "-o", "json")
    assert (code, [json.loads(line) for line in told.splitlines()]) == (
        0,
        [{key: value for key, value in point.items() if value is not None} for point in POINTS],
    )


# -- follow


@contextmanager
def happening(desk: "Desk", *statuses: Obj) -> Iterator[None]:
    """The run gets these statuses, one after the other, while the command looks."""

    def change() -> None:
        for status in statuses:
            desk.patch("finetunes/coder/status", {"status": status})

    timer = threading.Timer(0.3, change)
    timer.start()
    yield
    timer.join()


def test_what_is_followed_is_drawn_anew_until_it_has_ended(
    desk: "Desk", run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.showing.Screen.is_terminal", True)
    desk.make("FineTune", "finetunes", "coder", SPEC, {**RUNNING, "remaining": "13m"})
    with happening(desk, {"remaining": "2m"}, {"phase": "Succeeded", "remaining": None}):
        code, told, said = run("coder", "--follow")
    assert (code, said) == (0, "")
    assert "13m to go" in told
    assert told.splitlines()[-2] == "coder: Succeeded at step 40 of 100 (40 %)"
    assert told.count("Best checkpoint") == told.count("loss by step") > 1


@pytest.mark.parametrize("output", ["chart", "csv"])
def test_without_a_terminal_what_is_followed_is_shown_once_at_its_end(output: str, desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    last = {"step": 50, "loss": 1.3}
    with happening(desk, {"lossHistory": [*POINTS, last]}, {"phase": "Succeeded"}):
        code, told, said = run("coder", "--follow", "-o", output)
    assert (code, said) == (0, "")
    assert told.count("loss by step" if output == "chart" else "step,loss") == 1
    assert ("50,1.3," in told) is (output == "csv")


def test_a_run_that_fails_while_it_is_followed_ends_the_command_with_1(desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    failure = {"reason": "OutOfMemory", "message": "It took 9 GiB.", "hint": "Raise resources.memory."}
    with happening(desk, {"phase": "Failed", "failure": failure}):
        code, told, said = run("coder", "--follow")
    assert (code, "loss by step" in told) == (1, True)
    assert said.endswith("error: FineTune 'coder' has failed: It took 9 GiB. Raise resources.memory.")


def test_before_the_first_point_it_says_what_it_waits_for_once(desk: "Desk", run: Run) -> None:
    waiting = {"conditions": condition("Starting", "the pod starts")}
    desk.make("FineTune", "finetunes", "coder", SPEC, waiting)
    with happening(desk, {"phase": "Starting"}, {"lossHistory": POINTS, "phase": "Succeeded"}):
        code, told, said = run("coder", "--follow")
    assert (code, "loss by step" in told) == (0, True)
    assert said.count("Starting: the pod starts") == 1


def test_a_run_that_is_deleted_ends_what_follows_it(desk: "Desk", run: Run) -> None:
    desk.make("FineTune", "finetunes", "coder", SPEC, RUNNING)
    path = "/apis/codetune.dev/v1alpha1/namespaces/team/finetunes/coder"
    timer = threading.Timer(0.3, lambda: desk.connection.ask("DELETE", path))
    timer.start()
    code, _, said = run("coder", "--follow")
    timer.join()
    assert (code, said) == (1, "error: FineTune 'coder' was deleted.")


ENDS: dict[str, list[bytes]] = {
    "at its time": [],
    "as it is too old": [json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode()],
    "in the middle of a change": [b'{"type": "MODIFIED", "obj'],
    "after a bookmark": [b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}'],
}


@pytest.mark.parametrize("first", ENDS.values(), ids=ENDS.keys())
def test_a_watch_that_ends_is_taken_up_again(
    first: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running, ended = (
        make({**RUNNING, "phase": phase}).model_copy(deep=True).to_wire() for phase in ("Running", "Succeeded")
    )
    for wire in (running, ended):
        wire["metadata"]["resourceVersion"] = "7"
    watches = iter([first, [json.dumps({"type": "MODIFIED", "object": ended}).encode()]])
    pauses: list[float] = []
    monkeypatch.setattr("codetune_cli.waiting.time.sleep", pauses.append)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            lines = next(watches) if "watch=true" in self.path else [json.dumps(running).encode()]
            self.wfile.write(b"\n".join(lines))

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        whole = {
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{serving.server_address[1]}"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(json.dumps(whole))
        code = main(["plot", "coder", "--follow", "--kubeconfig", str(tmp_path / "config")])
        serving.shutdown()
        thread.join()
    assert (code, "Succeeded" in capsys.readouterr().out) == (0, True)
    assert pauses == [1.0]  # no faster than this
    assert all("fieldSelector=metadata.name%3Dcoder" in path for path in asked if "watch" in path)
