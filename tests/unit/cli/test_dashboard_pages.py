"""The dashboard's pages: what a person finds on them, and that nothing from the cluster becomes markup."""

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from codetune_api.finetune import FineTune
from codetune_cli.dashboard.following import KINDS, Shelf
from codetune_cli.dashboard.pages import View, render_overview, render_resource, say_age

Obj = dict[str, Any]
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
EARLIER = "2026-11-28T11:48:00Z"
DIGEST = "sha256:" + "ab" * 32


def _ready(status: str, reason: str, message: str) -> list[Obj]:
    return [{"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": EARLIER}]


def _resource(kind: str, name: str, spec: Obj, status: Obj, namespace: str = "team") -> Obj:
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": EARLIER}
    return {"apiVersion": "codetune.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def _project(name: str = "shop", **status: Any) -> Obj:
    return _resource("Project", name, {"sources": [{"name": "app", "git": {"url": "https://x.org/a.git"}}]}, status)


def _run(name: str = "tuned", **status: Any) -> Obj:
    return _resource("FineTune", name, {"projectRef": {"name": "shop"}, "baseModel": "hf://org/base"}, status)


def _server(name: str = "coder", **status: Any) -> Obj:
    return _resource("ModelDeployment", name, {"baseModel": "hf://org/base"}, status)


def _team(name: str = "backend", **status: Any) -> Obj:
    model = {"deploymentRef": {"name": "coder"}}
    return _resource("Team", name, {"apiKeysSecretRef": {"name": "keys"}, "completionModel": model}, status)


def _view(*objects: Obj, namespace: str = "team", problems: dict[str, str] | None = None) -> View:
    shelves = {}
    for kind, singular in zip(KINDS, ("Project", "FineTune", "ModelDeployment", "Team"), strict=True):
        of_kind = [found for found in objects if found["kind"] == singular]
        keyed = {(found["metadata"]["namespace"], found["metadata"]["name"]): found for found in of_kind}
        shelves[kind] = Shelf(keyed, loaded=True, problem=(problems or {}).get(kind, ""))
    return View(7, namespace, shelves, NOW)


def _read(page: str) -> str:
    """What a person reads of a page."""
    body = page.partition("<main>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def _page(view: View, kind: str, name: str) -> str:
    entry = view.find(kind, "team", name)
    assert entry is not None
    return render_resource(view, entry)


def test_the_overview_tells_of_every_kind_how_far_it_is() -> None:
    progress = {"step": 60, "totalSteps": 80, "percent": 75, "loss": 1.23456, "holdoutLoss": 1.5}
    scores = {"base": {"loss": 2.0}, "tuned": {"loss": 1.5}, "improvement": 0.25}
    view = _view(
        _project(phase="Ready", types="Python", files={"accepted": 412}, conditions=_ready("True", "Ok", "Scanned.")),
        _run(phase="Running", progress=progress, remaining="12m", evaluation=scores),
        _server(phase="Ready", replicas=2, readyReplicas=1, models=["coder", "shop"]),
        _team(
            phase="Starting", endpoint="http://gateway", models=[{"project": "", "deployment": "coder", "ready": True}]
        ),
    )
    told = _read(render_overview(view))
    assert "shop Ready 412 Python Scanned. 12m" in told
    assert "tuned Running 75 % 1.235 1.5 12m +25.0 % 12m" in told
    assert "coder Ready 1 of 2 coder, shop 12m" in told
    assert "backend Starting http://gateway 1 of 1 12m" in told


def test_a_resource_that_nobody_has_looked_at_yet_is_new() -> None:
    assert "tuned new 12m" in _read(render_overview(_view(_run())))
    for kind, name in (
        ("projects", "shop"),
        ("finetunes", "tuned"),
        ("modeldeployments", "coder"),
        ("teams", "backend"),
    ):
        assert f"{name} new" in _read(_page(_view(_project(), _run(), _server(), _team()), kind, name))


def test_the_namespace_is_told_where_there_are_several() -> None:
    other = _resource("FineTune", "tuned", _run()["spec"], {}, namespace="other")
    told = _read(render_overview(_view(_run(), other, namespace="")))
    assert told.index("tuned other new") < told.index("tuned team new")
    assert "Namespace" not in _read(render_overview(_view(_run())))


def test_a_kind_that_cannot_be_read_says_why_and_the_others_are_shown() -> None:
    refused = "teams.codetune.dev is forbidden: User x cannot list"
    told = _read(render_overview(_view(_project(phase="Ready"), problems={"teams": refused, "finetunes": "gone"})))
    assert refused in told
    assert "shop Ready" in told


def test_a_failure_comes_with_its_cure() -> None:
    failure = {"reason": "OutOfMemory", "message": "No memory is left.", "hint": "Ask for more."}
    for kind, name, made in (
        ("projects", "shop", _project(phase="Failed", failure=failure)),
        ("finetunes", "tuned", _run(phase="Failed", failure=failure)),
        ("modeldeployments", "coder", _server(phase="Failed", failure=failure)),
        ("teams", "backend", _team(phase="Failed", failure=failure)),
    ):
        assert "OutOfMemory No memory is left. What to do: Ask for more." in _read(_page(_view(made), kind, name))


def test_a_run_shows_its_losses_evaluation_and_checkpoints() -> None:
    point = {"name": "step-000020", "step": 20, "holdoutLoss": 1.5, "uri": "pvc://a/b", "digest": DIGEST, "bytes": 4900}
    scores = {
        "base": {"loss": 2.0, "exactMatch": 0.31},
        "tuned": {"loss": 1.5, "exactMatch": 0.44},
        "improvement": 0.25,
        "improvementInterval": {"low": 0.2, "high": 0.3},
        "exactMatchInterval": {"low": 0.05, "high": 0.2},
        "verdict": "Better",
        "files": 42,
        "message": "It is better.",
    }
    history = [{"step": 0, "loss": 2.5, "holdoutLoss": 2.5}, {"step": 20, "loss": 1.4, "holdoutLoss": 1.5}]
    run = _run(lossHistory=history, evaluation=scores, checkpoints=[point], bestCheckpoint="step-000020")
    page = _page(_view(run), "finetunes", "tuned")
    assert (page.count("<circle "), page.count('class="best" x1=')) == (2, 1)
    told = _read(page)
    assert "Better It is better. On 42 held-out files" in told
    assert "Loss, nats per token 2.0000 1.5000 +20.0 to +30.0 % better" in told
    assert "Lines completed to the letter 31.0 % 44.0 % +5.0 to +20.0 points" in told
    assert "Middles" not in told  # none were filled in
    assert "step-000020 (best) 1.5000 4.9 kB" in told


def test_a_project_shows_sources_types_and_what_was_left_out() -> None:
    source = {
        "name": "app",
        "commit": "c" * 40,
        "files": 9,
        "bytes": 12,
        "reason": "RevisionNotFound",
        "message": "Gone.",
    }
    kind = {"type": "Go", "extensions": [".go"], "files": 5, "accepted": 3, "rejected": 2, "bytes": 2000}
    rejection = {"reason": "Generated", "files": 2, "examples": ["app/x.go", "app/y.go"]}
    told = _read(_page(_view(_project(sources=[source], fileTypes=[kind], rejections=[rejection])), "projects", "shop"))
    assert f"app {'c' * 19} 9 12 B RevisionNotFound Gone." in told
    assert "Go .go 5 3 2 2.0 kB yes" in told
    assert "Generated 2 app/x.go , app/y.go" in told


def test_pages_lead_from_code_to_run_to_server_and_back() -> None:
    adapter = {"name": "a", "fineTune": "tuned", "phase": "Ready"}
    elsewhere = _resource("FineTune", "foreign", _run()["spec"], {}, namespace="other")
    view = _view(_project(), _run(), elsewhere, _server(adapters=[adapter]), _server("idle"))
    project, run = _page(view, "projects", "shop"), _page(view, "finetunes", "tuned")
    assert 'href="/finetunes/team/tuned"' in project
    assert "foreign" not in project
    assert 'href="/projects/team/shop"' in run
    assert 'href="/modeldeployments/team/coder"' in run
    assert "/modeldeployments/team/idle" not in run
    assert 'href="/finetunes/team/tuned"' in _page(view, "modeldeployments", "coder")


def test_nothing_from_the_cluster_becomes_markup() -> None:
    evil = "<script>alert(1)</script>\" onload='x"
    failure = {"reason": "InternalError", "message": evil, "hint": evil}
    rejection = {"reason": "Generated", "files": 1, "examples": [evil]}
    adapter = {"name": evil, "fineTune": evil, "phase": "Ready", "message": evil, "checkpoint": evil}
    view = _view(
        _project(
            failure=failure, conditions=_ready("False", "InternalError", evil), rejections=[rejection], types=evil
        ),
        _run(failure=failure, remaining=evil, progress={"message": evil, "stage": evil}),
        _server(failure=failure, models=[evil], endpoint=evil, adapters=[adapter]),
        _team(failure=failure, endpoint=evil, models=[{"project": evil, "deployment": evil, "ready": False}]),
        problems={"teams": evil},
    )
    pages = [_page(view, "projects", "shop"), _page(view, "finetunes", "tuned"), _page(view, "teams", "backend")]
    for page in [render_overview(view), _page(view, "modeldeployments", "coder"), *pages]:
        assert "alert(1)" in page
        assert "<script>alert" not in page
        assert "' onload" not in page.replace("&#34; onload", "")


def test_a_resource_of_another_version_is_listed_and_the_page_still_comes() -> None:
    strange = _run(progress={"percent": "many"})
    view = _view(strange, _run("other", phase="Running"))
    told = _read(render_overview(view))
    assert "tuned of another version of Codetune" in told
    assert "other Running" in told
    assert "must be of the same Codetune version" in _read(_page(view, "finetunes", "tuned"))


def test_lists_take_no_time_for_the_points_of_all_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def count(found: Obj) -> FineTune:
        read.append(len(found["status"].get("lossHistory", [])))
        return from_wire(found)

    from_wire = FineTune.from_wire
    monkeypatch.setattr(FineTune, "from_wire", count)
    runs = [_run(f"run-{number}", lossHistory=[{"step": 1, "loss": 2.5}] * 100) for number in range(3)]
    view = _view(*runs, _project())
    render_overview(view)
    _page(view, "projects", "shop")
    assert read == [0, 0, 0]
    assert "<svg" in _page(view, "finetunes", "run-1")
    assert read == [0, 0, 0, 100]


@pytest.mark.parametrize(
    ("expected", "time"),
    [
        pytest.param("", None, id="never"),
        pytest.param("0s", "2026-11-28T12:00:03Z", id="a clock that is ahead"),
        pytest.param("59s", "2026-11-28T11:59:01Z", id="seconds"),
        pytest.param("12m", EARLIER, id="minutes"),
        pytest.param("23h", "2026-11-27T12:30:00Z", id="hours"),
        pytest.param("2d", "2026-11-26T11:00:00.5Z", id="days"),
        pytest.param("2026-02-30T00:00:00Z", "2026-02-30T00:00:00Z", id="a day that there is not"),
    ],
)
def test_ages_are_said_as_kubectl_says_them(expected: str, time: str | None) -> None:
    assert say_age(time, NOW) == expected
