"""`kubectl codetune logs`: what a run prints, from its pod while there is one, else from the store.

No kubelet runs: `desk.logs` answers for it, and a test sets what pods and runs are, also while the command waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from codetune_cli.main import main
from codetune_cli.pods import find_container

if TYPE_CHECKING:
    from unit.cli.conftest import Desk

Obj = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
SPEC = {"projectRef": {"name": "shop"}, "baseModel": "hf://a/b"}
GIT = {"name": "app", "git": {"url": "https://example.org/app.git"}}
STARTED = {"phase": "Running", "startedAt": "2026-11-23T10:00:00Z"}
LINES = [
    ("2026-11-23T10:00:01.5Z", "event=stage nonce=abc stage=Training"),
    ("2026-11-23T10:00:02.123456789Z", "event=progress nonce=abc step=1 total=9 loss=2.5"),
    ("2026-11-23T10:00:02.2Z", "event=progress nonce=abc step=2 total=9 loss=2.4"),
]
TEXTS = [text for _, text in LINES]


@dataclass
class Cluster:
    """What happens while the command waits: one entry for each pause."""

    desk: "Desk"
    events: list[Callable[[], None]] = field(default_factory=list)

    def sleep(self, _: float) -> None:
        """In the place of time."""
        assert self.events, "the command waits for something that does not come"
        self.events.pop(0)()

    def pod(
        self, name: str, state: str = "running", *, index: int | None = None, owner: str = "coder", init: str = ""
    ) -> None:
        """A pod of a run, whose container `train` (or `scan`) is `state`, behind a container `fetch` that is `init`."""
        component = "train" if owner == "coder" else "scan"
        labels = {
            "app.kubernetes.io/component": component,
            "codetune.dev/finetune" if owner == "coder" else "codetune.dev/project": owner,
        }
        annotations = {} if index is None else {"batch.kubernetes.io/job-completion-index": str(index)}
        spec: Obj = {"containers": [{"name": component, "image": "x"}]}
        if init:
            spec["initContainers"] = [{"name": "fetch", "image": "x"}]
        pod = {"metadata": {"name": name, "labels": labels, "annotations": annotations}, "spec": spec}
        self.desk.connection.ask("POST", "/api/v1/namespaces/team/pods", pod)
        self.become(name, state, container=component, init=init)

    def become(self, name: str, state: str, *, container: str = "train", init: str = "") -> None:
        """What the kubelet says of a pod."""
        phase = {"terminated": "Succeeded", "failed": "Failed", "waiting": "Pending"}.get(state, "Running")
        status: Obj = {"phase": phase, "containerStatuses": [told(container, state)]}
        if init:
            status["initContainerStatuses"] = [told("fetch", init)]
        self.desk.patch(f"pods/{name}/status", {"status": status})

    def remove(self, name: str) -> None:
        """Its Job is gone."""
        self.desk.connection.ask("DELETE", f"/api/v1/namespaces/team/pods/{name}?gracePeriodSeconds=0")

    def phase(self, phase: str, **more: Any) -> None:
        """Where the run stands."""
        self.desk.patch("finetunes/coder/status", {"status": {"phase": phase, **more}})


def told(container: str, state: str) -> Obj:
    """What stands in a pod's status about a container."""
    states: dict[str, Obj] = {
        "running": {"running": {"startedAt": "2026-11-23T10:00:00Z"}},
        "terminated": {"terminated": {"exitCode": 0}},
        "failed": {"terminated": {"exitCode": 1}},
        "waiting": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
    }
    return {"name": container, "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": states[state]}


@pytest.fixture
def cluster(desk: "Desk", monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A FineTune `coder` that runs."""
    desk.define()
    desk.make("FineTune", "finetunes", "coder", SPEC, STARTED)
    made = Cluster(desk)
    monkeypatch.setattr("codetune_cli.waiting.time.sleep", made.sleep)
    return made


@pytest.fixture
def run(desk: "Desk", capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(...)` shows a log; returns exit code, stdout, and stderr as one line."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["logs", *words, "--kubeconfig", str(desk.kubeconfig), "-n", "team", "--timeout", "0"])
        captured = capsys.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def keep_log(desk: "Desk", content: bytes) -> None:
    """What the run has written into the store."""
    uid = desk.connection.ask("GET", "/apis/codetune.dev/v1alpha1/namespaces/team/finetunes/coder")["metadata"]["uid"]
    folder = desk.root / "team/finetunes/coder" / uid
    folder.mkdir(parents=True)
    (folder / "train.log").write_bytes(content)


@pytest.mark.parametrize("target", ["coder", "finetune/coder", "ft/coder"])
def test_the_log_of_a_runs_pod_is_shown_without_its_times(target: str, cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x")
    cluster.desk.logs.lines["coder-x/train"] = LINES
    assert run(target) == (0, "".join(f"{text}\n" for text in TEXTS), "")


def test_the_log_of_a_projects_scan_is_shown(cluster: Cluster, run: Run) -> None:
    cluster.desk.make("Project", "projects", "shop", {"sources": [GIT]})
    cluster.pod("shop-x", owner="shop")
    cluster.desk.logs.lines["shop-x/scan"] = LINES[:1]
    assert run("project/shop") == (0, f"{TEXTS[0]}\n", "")


def test_what_could_steer_a_terminal_is_escaped_and_a_line_stays_a_line(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x")
    times = [LINES[0][0]] * 3
    evil = ["a\x1b[2J\u202eb", 'event=stage message="two\\nlines"\tand a tab\r', "50%\r100%"]
    cluster.desk.logs.lines["coder-x/train"] = list(zip(times, evil, strict=True))
    code, out, _ = run("coder")
    assert code == 0
    assert out.splitlines() == [
        "a\\x1b[2J\\u202eb", 'event=stage message="two\\nlines"'.ljust(40) + "and a tab", "50%\\r100%",
    ]  # fmt: skip


CHOICES: dict[str, tuple[str, list[str]]] = {
    "the first node by default": ("of node 0, again", []),
    "by index": ("of node 1", ["--pod", "1"]),
    "by name": ("of node 1", ["--pod", "coder-1-a"]),
    "an attempt before": ("of node 0", ["--pod", "coder-0-a"]),
}


def make_nodes(cluster: Cluster) -> None:
    """Two nodes, of which the first was begun again."""
    for name, index, text in (
        ("coder-0-a", 0, "of node 0"), ("coder-1-a", 1, "of node 1"), ("coder-0-b", 0, "of node 0, again"),
    ):  # fmt: skip
        cluster.pod(name, index=index)
        cluster.desk.logs.lines[f"{name}/train"] = [(LINES[0][0], text)]


@pytest.mark.parametrize("row", CHOICES.values(), ids=CHOICES.keys())
def test_of_several_pods_one_is_shown(row: tuple[str, list[str]], cluster: Cluster, run: Run) -> None:
    expected, words = row
    make_nodes(cluster)
    code, out, said = run("coder", *words)
    assert (code, out) == (0, f"{expected}\n")
    assert said == ("" if words else "Pod coder-0-b, of 2; --pod shows another: 0, 1, or a name.")


@pytest.mark.parametrize("wanted", ["2", "-1", "coder-2-a"])
def test_a_pod_that_is_not_there_names_those_that_are(wanted: str, cluster: Cluster, run: Run) -> None:
    make_nodes(cluster)
    code, _, said = run("coder", f"--pod={wanted}")
    assert code == 1
    assert f"There is no pod {wanted!r} of this run" in said
    assert "coder-0-a (0), coder-0-b (0), coder-1-a (1)" in said


CONTAINERS: dict[str, tuple[str | None, list[str], str]] = {
    "nothing has begun": (None, ["waiting"], "waiting"),
    "the first of two before": ("fetch", ["running", "waiting"], "waiting"),
    "one before has failed": ("fetch", ["failed"], "waiting"),
    "what does the work": ("train", ["terminated", "terminated"], "running"),
    "what does the work has ended": ("train", ["terminated"], "failed"),
}


@pytest.mark.parametrize("row", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_the_container_that_has_begun_last_is_the_one_that_is_shown(row: tuple[str | None, list[str], str]) -> None:
    expected, before, state = row
    names = ["fetch", "more"][: len(before)]
    pod = {
        "metadata": {"name": "p"},
        "spec": {"initContainers": [{"name": name} for name in names], "containers": [{"name": "train"}]},
        "status": {
            "initContainerStatuses": [told(name, found) for name, found in zip(names, before, strict=True)],
            "containerStatuses": [told("train", state)],
        },
    }
    assert find_container(pod) == expected


def test_a_pod_that_has_not_begun_says_what_holds_it_up(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x", "waiting")
    code, _, said = run("coder")
    assert (code, said) == (
        1, "error: Pod coder-x has printed nothing yet: pod coder-x: ErrImagePull: no such image"
    )  # fmt: skip


# -- from the store


def test_where_the_pod_is_gone_the_kept_log_is_shown(cluster: Cluster, run: Run) -> None:
    cluster.phase("Succeeded")
    keep_log(cluster.desk, b"event=stage stage=Training\n\x1b[31mred\xff\nno line break")
    code, out, said = run("coder")
    assert (code, out.splitlines()) == (0, ["event=stage stage=Training", "\\x1b[31mred\ufffd", "no line break"])
    assert "The pods of FineTune 'coder' are gone" in said
    assert "codetune.dev/store-until" in cluster.desk.annotations("finetunes", "coder")


def test_a_run_that_has_kept_no_log_says_so(cluster: Cluster, run: Run) -> None:
    code, out, said = run("coder")
    assert (code, out) == (1, "")
    assert "The store has no log of FineTune 'coder': There is no file" in said


def test_a_kept_log_that_breaks_off_is_no_success(cluster: Cluster, run: Run) -> None:
    keep_log(cluster.desk, b"line\n" * 200_000)
    cluster.desk.line.cuts = [("", 0)] * 1 + [("back", 50_000)]
    code, out, said = run("coder")
    assert (code, set(out.splitlines()) >= {"line"}) == (1, True)
    assert "broke off" in said
    assert "Run the same command again." in said


def test_a_run_that_never_began_says_why(desk: "Desk", run: Run) -> None:
    desk.define()
    queued = {"type": "Ready", "status": "False", "reason": "Queued", "message": "Kueue has not let it in",
              "lastTransitionTime": "2026-11-23T10:00:00Z"}  # fmt: skip
    desk.make("FineTune", "finetunes", "coder", SPEC, {"conditions": [queued]})
    code, _, said = run("coder")
    assert code == 1
    assert said.endswith("has printed nothing yet: no pod of it has begun. Queued: Kueue has not let it in")


def test_the_log_of_a_scan_goes_with_its_pod(cluster: Cluster, run: Run) -> None:
    cluster.desk.make("Project", "projects", "shop", {"sources": [GIT]})
    code, _, said = run("project/shop")
    assert (code, "kubectl codetune files shop" in said) == (1, True)


def test_a_pod_that_was_asked_for_and_is_gone_is_not_replaced_by_something_else(cluster: Cluster, run: Run) -> None:
    keep_log(cluster.desk, b"line\n")
    code, out, said = run("coder", "--pod", "0")
    assert (code, out, "without --pod" in said) == (1, "", True)


@pytest.mark.parametrize("target", ["team/x", "project/", "a/b/c"])
def test_a_target_that_is_none_is_refused(target: str, cluster: Cluster, run: Run) -> None:
    code, _, said = run(target)
    assert (code, "is neither a FineTune's name nor project/NAME" in said) == (1, True)


# -- follow


def test_a_log_is_followed_until_the_run_has_ended(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x")
    cluster.desk.logs.lines["coder-x/train"] = LINES[:2]

    def end() -> None:
        cluster.desk.logs.lines["coder-x/train"] = LINES
        cluster.become("coder-x", "terminated")
        cluster.phase("Succeeded")

    cluster.events = [end]
    assert run("coder", "--follow") == (0, "".join(f"{text}\n" for text in TEXTS), "")
    assert all(asked["follow"] for asked in cluster.desk.logs.asked)


@pytest.mark.parametrize("cut", [0, 1, 2], ids="after {} lines".format)
def test_a_followed_log_that_breaks_off_goes_on_where_it_was(cut: int, cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x", "terminated")
    cluster.phase("Succeeded")
    cluster.desk.logs.lines["coder-x/train"] = LINES
    cluster.desk.logs.cuts = [cut]
    cluster.events = [lambda: None]
    code, out, _ = run("coder", "-f")
    assert (code, out.splitlines()) == (0, TEXTS)


def test_a_log_whose_pod_went_before_it_was_read_on_is_no_success(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x")
    cluster.desk.logs.lines["coder-x/train"] = LINES
    cluster.desk.logs.cuts = [1]

    def end() -> None:
        cluster.remove("coder-x")
        cluster.phase("Succeeded")

    cluster.events = [end]
    code, out, said = run("coder", "-f")
    assert (code, out.splitlines()) == (1, TEXTS[:1])
    assert "The log of coder-x broke off and could not be read on" in said
    assert "without --follow, what the store has of the log is shown" in said


AT_ONCE = [("2026-11-23T10:00:02.123456001Z", "same"), ("2026-11-23T10:00:02.123456001Z", "same")]
AT_ONCE += [("2026-11-23T10:00:02.123456789Z", f"line {number}") for number in range(3)]


@pytest.mark.parametrize("cut", range(len(AT_ONCE)), ids="after {} lines".format)
def test_of_lines_that_were_printed_at_once_none_is_lost_or_shown_twice(cut: int, cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x", "terminated")
    cluster.phase("Succeeded")
    cluster.desk.logs.lines["coder-x/train"] = [*AT_ONCE, LINES[-1]]
    cluster.desk.logs.cuts = [cut, cut]
    cluster.events = [lambda: None, lambda: None]
    code, out, _ = run("coder", "-f")
    assert (code, out.splitlines()) == (0, ["same", "same", "line 0", "line 1", "line 2", TEXTS[-1]])


def test_a_line_that_comes_in_parts_is_not_shown_again_either(
    cluster: Cluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codetune_cli.streaming.LINE_LIMIT", 1000)
    monkeypatch.setattr("codetune_cli.streaming._PIECE", 5000)
    cluster.pod("coder-x", "terminated")
    cluster.phase("Succeeded")
    long = ("2026-11-23T10:00:02.1Z", "x" * 100_000)
    cluster.desk.logs.lines["coder-x/train"] = [long, *LINES[1:]]
    cluster.desk.logs.cuts = [2]
    cluster.events = [lambda: None]
    code, out, _ = run("coder", "-f")
    assert (code, out.count("x"), out.count(TEXTS[1]), out.count(TEXTS[2])) == (0, 100_000, 1, 1)


def test_a_run_that_begins_again_is_followed_into_its_next_pod(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-a", "failed")
    cluster.desk.logs.lines |= {"coder-a/train": LINES[:1], "coder-b/train": LINES[1:]}

    def begin_again() -> None:
        cluster.pod("coder-b", "terminated")
        cluster.phase("Succeeded")

    cluster.events = [lambda: None, begin_again]
    code, out, _ = run("coder", "-f")
    assert (code, out.splitlines()) == (0, TEXTS)


def test_a_log_that_breaks_off_is_shown_whole_before_that_of_a_newer_pod(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-a", "failed")
    cluster.desk.logs.lines |= {"coder-a/train": LINES[:2], "coder-b/train": LINES[2:]}
    cluster.desk.logs.cuts = [1]

    def begin_again() -> None:
        cluster.pod("coder-b", "terminated")
        cluster.phase("Succeeded")

    cluster.events = [begin_again, lambda: None]
    code, out, _ = run("coder", "-f")
    assert (code, out.splitlines()) == (0, TEXTS)


def test_what_is_followed_from_its_beginning_shows_each_container(cluster: Cluster, run: Run) -> None:
    cluster.desk.logs.lines |= {"coder-x/fetch": LINES[:1], "coder-x/train": LINES[1:]}

    def work() -> None:
        cluster.become("coder-x", "terminated", init="terminated")
        cluster.phase("Succeeded")

    cluster.events = [
        lambda: cluster.pod("coder-x", "waiting", init="waiting"),
        lambda: cluster.become("coder-x", "waiting", init="running"),
        work,
    ]
    code, out, said = run("coder", "-f")
    assert (code, out.splitlines()) == (0, TEXTS)
    assert "Waiting: pod coder-x: ErrImagePull: no such image" in said


def test_a_run_that_has_ended_and_lost_its_pods_is_followed_into_the_store(cluster: Cluster, run: Run) -> None:
    cluster.phase("Failed")
    keep_log(cluster.desk, b"the end\n")
    code, out, _ = run("coder", "-f")
    assert (code, out) == (0, "the end\n")


def test_a_run_that_is_suspended_while_it_is_followed_ends_what_follows_it(cluster: Cluster, run: Run) -> None:
    cluster.pod("coder-x")
    cluster.desk.logs.lines["coder-x/train"] = LINES

    def suspend() -> None:
        cluster.remove("coder-x")
        cluster.phase("Suspended")

    cluster.events = [suspend]
    code, out, _ = run("coder", "-f")
    assert (code, out.splitlines()) == (0, TEXTS)
