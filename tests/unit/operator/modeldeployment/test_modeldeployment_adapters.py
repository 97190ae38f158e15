"""Which adapters a deployment serves: from the spec and the FineTunes to the set that every pod should hold."""

from typing import Any

import pytest
from codetune_api.contracts import DesiredAdapter
from codetune_api.finetune import FineTune
from codetune_api.modeldeployment import ModelDeploymentSpec
from codetune_operator.reconcile.modeldeployment.adapters import (
    ALLOWED_RANKS,
    ResolvedAdapter,
    desired_set,
    max_lora_rank,
    resolve_adapters,
)
from codetune_operator.reconcile.modeldeployment.adapterstates import adapter_states
from codetune_operator.settings import Settings
from hypothesis import given
from hypothesis import strategies as st

Obj = dict[str, Any]
BASE = "hf://org/base"
D1, D2, D3 = ("sha256:" + digit * 64 for digit in "123")


def make_checkpoint(step: int, digest: str) -> Obj:
    name = f"step-{step:06d}"
    uri = f"pvc://codetune-artifacts/ns/finetunes/backend/u1/checkpoints/{name}"
    return {"name": name, "step": step, "uri": uri, "digest": digest}


def make_finetune(
    phase: str = "Succeeded", *, base: str = BASE, improvement: float | None = 0.1, **more: Any
) -> FineTune:
    status: Obj = {
        "phase": phase,
        "checkpoints": [make_checkpoint(100, D1), make_checkpoint(200, D2)],
        "bestCheckpoint": "step-000100",
        "latestCheckpoint": "step-000200",
        "adapter": {"uri": "x", "digest": D1, "rank": 32},
    }
    if improvement is not None:
        status["evaluation"] = {"base": {"loss": 2.0}, "tuned": {"loss": 1.8}, "improvement": improvement}
    status |= more.pop("status", {})
    metadata = {"name": "backend", "namespace": "ns", "uid": "u1", **more.pop("metadata", {})}
    spec = {"projectRef": {"name": "p"}, "baseModel": base, **more}
    return FineTune.from_wire(
        {
            "apiVersion": "codetune.dev/v1alpha1",
            "kind": "FineTune",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        }
    )


def make_spec(*adapters: Obj, **more: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.from_wire({"baseModel": f"{BASE}@main", "adapters": list(adapters), **more})


def by_finetune(**more: Any) -> Obj:
    return {"name": "mine", "fineTuneRef": {"name": "backend"}, **more}


NONE_YET: Obj = {"checkpoints": [], "bestCheckpoint": None, "latestCheckpoint": None, "adapter": None}
PURGED = {
    "type": "Ready", "status": "False", "reason": "Purging", "lastTransitionTime": "2026-11-23T10:00:00Z"
}  # fmt: skip
FAILURE = {"reason": "DivergedLoss", "message": "The loss is not a number.", "hint": ""}

SERVED = [
    pytest.param("step-000100", D1, by_finetune(), make_finetune(), id="best by default"),
    pytest.param("step-000100", D1, by_finetune(checkpoint="best"), make_finetune(), id="best"),
    pytest.param("step-000200", D2, by_finetune(checkpoint="latest"), make_finetune(), id="latest"),
    pytest.param("step-000200", D2, by_finetune(checkpoint="latest"), make_finetune("Running"), id="latest of a run"),
    pytest.param("step-000100", D1, by_finetune(), make_finetune("Running"), id="best so far of a run that goes on"),
    pytest.param("step-000100", D1, by_finetune(), make_finetune("Suspended"), id="best so far of a halted run"),
    pytest.param("step-000100", D1, by_finetune(), make_finetune("Failed"), id="best that a failed run has kept"),
    pytest.param(
        "step-000100",
        D1,
        by_finetune(),
        make_finetune(metadata={"deletionTimestamp": "2026-11-23T10:00:00Z"}),
        id="being deleted, held for us",
    ),
    pytest.param(
        "step-000100", D1, by_finetune(minImprovement=0.05), make_finetune("Running"), id="evaluated, and run again"
    ),
    pytest.param("step-000200", D2, by_finetune(checkpoint="latest"), make_finetune("Failed"), id="latest of a failed"),
    pytest.param("step-000200", D2, by_finetune(checkpoint="step-200"), make_finetune(), id="by number"),
    pytest.param("step-000100", D1, by_finetune(checkpoint="step-000100"), make_finetune(), id="by padded number"),
    pytest.param("step-000100", D1, by_finetune(minImprovement=0.1), make_finetune(), id="just good enough"),
]


@pytest.mark.parametrize(("checkpoint", "digest", "adapter", "finetune"), SERVED)
def test_a_checkpoint_is_chosen(checkpoint: str, digest: str, adapter: Obj, finetune: FineTune) -> None:
    (resolved,) = resolve_adapters(make_spec(adapter), {"backend": finetune}, Settings())
    assert resolved.checkpoint == checkpoint
    assert resolved.desired == DesiredAdapter(
        name="mine", digest=digest, path=f"ns/finetunes/backend/u1/checkpoints/{checkpoint}"
    )


BLOCKED = [
    pytest.param("Pending", "AdapterPending", ["'backend' does not exist"], by_finetune(), None, id="missing"),
    pytest.param(
        "Pending",
        "AdapterPending",
        ["is Running", "no checkpoint 'best' yet"],
        by_finetune(),
        make_finetune("Running", status=NONE_YET),
        id="best of a run that has none yet",
    ),
    pytest.param(
        "Pending",
        "AdapterPending",
        ["no checkpoint 'latest' yet"],
        by_finetune(checkpoint="latest"),
        make_finetune("Running", status=NONE_YET),
        id="no checkpoint yet",
    ),
    pytest.param(
        "Pending",
        "AdapterPending",
        ["no checkpoint 'step-900' yet"],
        by_finetune(checkpoint="step-900"),
        make_finetune("Running"),
        id="the step is still to come",
    ),
    pytest.param(
        "Pending",
        "AdapterPending",
        ["improvement is known"],
        by_finetune(checkpoint="latest", minImprovement=0.1),
        make_finetune("Running", improvement=None),
        id="improvement not measured yet",
    ),
    pytest.param(
        "Pending",
        "AdapterPending",
        ["being deleted with its artifacts"],
        by_finetune(),
        make_finetune(metadata={"deletionTimestamp": "2026-11-23T10:00:00Z"}, status={"conditions": [PURGED]}),
        id="being purged",
    ),
    pytest.param(
        "Failed",
        "AdapterIncompatible",
        ["hf://org/other", f"{BASE}@main"],
        by_finetune(),
        make_finetune(base="hf://org/other"),
        id="another base model",
    ),
    pytest.param(
        "Failed",
        "AdapterIncompatible",
        ["hf://org/base@v2"],
        by_finetune(),
        make_finetune(base="hf://org/base@v2"),
        id="another revision of the base model",
    ),
    pytest.param(
        "Failed",
        "AdapterFailed",
        ["DivergedLoss: The loss is not a number", "step-000200"],
        by_finetune(),
        make_finetune("Failed", status={"failure": FAILURE, "bestCheckpoint": None}),
        id="the run failed and left checkpoints, none known as best",
    ),
    pytest.param(
        "Failed",
        "AdapterFailed",
        ["DivergedLoss", "remove the adapter"],
        by_finetune(),
        make_finetune("Failed", status={"failure": FAILURE, **NONE_YET}),
        id="the run failed and left nothing",
    ),
    pytest.param(
        "Failed",
        "AdapterNotFound",
        ["'step-7'", "step-000100, step-000200"],
        by_finetune(checkpoint="step-7"),
        make_finetune(),
        id="no such checkpoint",
    ),
    pytest.param(
        "Held", "AdapterHeld", ["10.00%", "20.00%"], by_finetune(minImprovement=0.2), make_finetune(), id="not enough"
    ),
    pytest.param(
        "Held",
        "AdapterHeld",
        ["not evaluated", "holdout.fraction"],
        by_finetune(minImprovement=0.2),
        make_finetune(improvement=None),
        id="never evaluated",
    ),
    pytest.param(
        "Failed",
        "AdapterUnsupported",
        ["codetune-artifacts"],
        {"name": "mine", "uri": "pvc://elsewhere/adapter"},
        None,
        id="another claim",
    ),
    pytest.param(
        "Failed",
        "AdapterUnsupported",
        ["codetune-artifacts"],
        {"name": "mine", "uri": "pvc://codetune-artifacts/ns/../../other"},
        None,
        id="out of the store",
    ),
    pytest.param(
        "Failed",
        "AdapterUnsupported",
        ["no `fileRoot`", "pvc://codetune-artifacts/PATH"],
        {"name": "mine", "uri": "file:///adapters/mine"},
        None,
        id="a file on a real cluster",
    ),
    pytest.param(
        "Failed",
        "AdapterUnsupported",
        ["base model's own name"],
        {"name": "base", "fineTuneRef": {"name": "backend"}},
        make_finetune(),
        id="the base model's name",
    ),
]


@pytest.mark.parametrize(("phase", "reason", "messages", "adapter", "finetune"), BLOCKED)
def test_what_cannot_be_served_says_why(
    phase: str, reason: str, messages: list[str], adapter: Obj, finetune: FineTune | None
) -> None:
    good = {"name": "good", "uri": "pvc://codetune-artifacts/good"}
    found = {"backend": finetune} if finetune else {}
    blocked, served = resolve_adapters(make_spec(adapter, good), found, Settings())
    assert (blocked.phase, blocked.reason, blocked.desired) == (phase, reason, None)
    for message in messages:
        assert message in blocked.message
    assert desired_set([blocked, served]).adapters == [DesiredAdapter(name="good", path="good")]


RANKS = [
    pytest.param(16, None, 0, id="none"),
    pytest.param(32, make_finetune(), 0, id="what the adapter has"),
    pytest.param(64, make_finetune("Running", status=NONE_YET), 0, id="a run that has not said: the largest preset"),
    pytest.param(16, make_finetune("Running", status=NONE_YET, preset="Smaller"), 0, id="its preset"),
    pytest.param(256, make_finetune("Running", status=NONE_YET, lora={"rank": 130}), 0, id="rounded up to allowed"),
    pytest.param(128, make_finetune(), 128, id="never shrinks"),
    pytest.param(16, make_finetune(base="hf://org/other"), 0, id="an incompatible one does not count"),
]


@pytest.mark.parametrize(("expected", "finetune", "current"), RANKS)
def test_the_largest_rank_follows_from_the_adapters(expected: int, finetune: FineTune | None, current: int) -> None:
    resolved = resolve_adapters(make_spec(by_finetune()), {"backend": finetune} if finetune else {}, Settings())
    assert max_lora_rank(resolved, current=current) == expected


@given(st.lists(st.integers(1, 512), max_size=5), st.sampled_from((0, *ALLOWED_RANKS)))
def test_the_largest_rank_is_allowed_and_enough(ranks: list[int], current: int) -> None:
    rank = max_lora_rank([ResolvedAdapter(name="a", rank=each) for each in ranks], current=current)
    assert rank in ALLOWED_RANKS
    assert rank >= max([16, current, *ranks])


def labelled(name: str, labels: dict[str, str], **more: Any) -> FineTune:
    metadata = {"name": name, "labels": labels, **more.pop("metadata", {})}
    return make_finetune(more.pop("phase", "Succeeded"), metadata=metadata, **more)


SELECTORS = [
    pytest.param(["a", "b"], {"matchLabels": {"team": "x"}}, id="labels"),
    pytest.param(["a"], {"matchLabels": {"team": "x", "stage": "prod"}}, id="both labels"),
    pytest.param(["a", "b", "c", "d"], {}, id="nothing asked"),
    pytest.param(["a", "c"], {"matchExpressions": [{"key": "stage", "operator": "Exists"}]}, id="Exists"),
    pytest.param(["b", "d"], {"matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]}, id="DoesNotExist"),
    pytest.param(["c"], {"matchExpressions": [{"key": "team", "operator": "In", "values": ["y", "z"]}]}, id="In"),
    pytest.param(["c", "d"], {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["x"]}]}, id="NotIn"),
    pytest.param(
        ["b"],
        {"matchLabels": {"team": "x"}, "matchExpressions": [{"key": "stage", "operator": "DoesNotExist"}]},
        id="labels and expressions",
    ),
]


@pytest.mark.parametrize(("expected", "selector"), SELECTORS)
def test_a_selector_serves_every_match_under_its_own_name(expected: list[str], selector: Obj) -> None:
    found = {
        "a": labelled("a", {"team": "x", "stage": "prod"}),
        "b": labelled("b", {"team": "x"}),
        "c": labelled("c", {"team": "y", "stage": "test"}),
        "d": labelled("d", {}),
    }
    resolved = resolve_adapters(make_spec(adapterSelector=selector), found, Settings())
    assert [each.name for each in resolved] == expected
    assert [each.fine_tune for each in resolved] == expected
    assert all(each.is_selected and each.desired for each in resolved)


def test_an_adapter_that_is_named_wins_over_a_match_of_its_name() -> None:
    spec = make_spec(
        {"name": "a", "fineTuneRef": {"name": "b"}}, adapterSelector={"checkpoint": "latest", "minImprovement": 0.05}
    )
    resolved = resolve_adapters(spec, {"a": labelled("a", {}), "b": labelled("b", {})}, Settings())
    assert [(each.name, each.fine_tune, each.checkpoint) for each in resolved] == [
        ("a", "b", "step-000100"),
        ("b", "b", "step-000200"),
    ]


def test_what_a_selector_finds_is_held_back_as_it_says() -> None:
    spec = make_spec(adapterSelector={"minImprovement": 0.2})
    (held,) = resolve_adapters(spec, {"a": labelled("a", {})}, Settings())
    assert (held.phase, held.reason, held.desired) == ("Held", "AdapterHeld", None)


def test_a_match_that_is_being_deleted_is_let_go_of() -> None:
    gone = labelled("a", {}, metadata={"deletionTimestamp": "2026-11-23T10:00:00Z"})
    assert resolve_adapters(make_spec(adapterSelector={}), {"a": gone}, Settings()) == ()


def test_no_more_are_selected_than_a_server_may_hold() -> None:
    found = {f"f{i:03}": labelled(f"f{i:03}", {}) for i in range(300)}
    resolved = resolve_adapters(make_spec(by_finetune(), adapterSelector={}), found, Settings())
    assert len(resolved) == 256
    assert resolved[-1].name == "f254"


def test_what_a_failed_run_kept_is_served_with_a_word_about_it() -> None:
    failed = make_finetune("Failed", status={"failure": FAILURE})
    resolved = resolve_adapters(make_spec(by_finetune()), {"backend": failed}, Settings())
    (state,) = adapter_states(resolved, {}, replicas=1)
    assert "'backend' failed (DivergedLoss)" in state.message
    assert state.fine_tune == "backend"


@pytest.mark.parametrize(
    ("expected", "uri"),
    [
        pytest.param(
            DesiredAdapter(name="mine", path="adapters/mine", root="Files"), "file:///adapters/mine/", id="a file"
        ),
        pytest.param(
            DesiredAdapter(name="mine", path="ns/mine"), "pvc://codetune-artifacts/ns/mine", id="in the store"
        ),
        pytest.param(None, "file:///../etc", id="out of the file root"),
    ],
)
def test_a_local_cluster_serves_adapters_from_files_too(expected: DesiredAdapter | None, uri: str) -> None:
    (resolved,) = resolve_adapters(make_spec({"name": "mine", "uri": uri}), {}, Settings(file_root="/srv"))
    assert resolved.desired == expected
