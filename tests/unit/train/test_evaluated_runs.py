"""Whole runs and what they say of their own result: base against tuned, on files that were never trained on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.finetune import Checkpoints
from codetune_api.protocol import ParametersEvent, StageEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from unit.train.conftest import Store

NAMES = ("more", "extra", "spare", "further", "other", "another", "added")


@pytest.fixture
def wide(infilling: "Store", code: "Callable[[str, int], str]") -> dict[str, str]:
    """A dataset with seven files held out."""
    trained = [code(name, 12) for name in ("add", "sum", "plus", "increase", "grow", "raise")]
    return infilling.add_dataset("wide", trained, [code(name, 4) for name in NAMES])


def test_base_and_tuned_answer_the_same_questions(infilling: "Store", wide: dict[str, str]) -> None:
    infilling.train(infilling.config(**wide, training={"max_steps": 12}))
    found = infilling.evaluation
    assert found.verdict == "Better"
    assert found.improvement_interval is not None
    assert 0 < found.improvement_interval.low <= found.improvement <= found.improvement_interval.high
    assert (found.files, found.lines, found.infills) == (7, 16, 16)
    for scores in (found.base, found.tuned):
        assert None not in scores.model_dump().values()
    assert "more than chance" in found.message
    assert "next line exact" in found.message
    assert "fill-in-the-middle exact" in found.message


def test_the_best_checkpoint_is_judged_by_files_that_did_not_choose_it(
    store: "Store", code: "Callable[[str, int], str]"
) -> None:
    names = [f"{first}{second}" for first in "abcde" for second in "vwxyz"]
    held_out = [code(f"name_{name}", 2) for name in names]
    store.train(store.config(**store.add_dataset("halved", [code("add", 12)], held_out)))
    found = store.evaluation
    assert min(found.files, found.selection_files) >= 10
    assert found.files + found.selection_files == len(held_out)
    (best,) = [entry for entry in store.result.checkpoints if entry.name == store.result.best_checkpoint]
    assert best.holdout_loss != pytest.approx(found.tuned.loss, rel=1e-6)
    assert "chose" not in found.message


def test_where_few_files_are_held_out_the_sentence_says_that_they_chose_the_checkpoint_too(
    infilling: "Store", wide: dict[str, str]
) -> None:
    infilling.train(infilling.config(**wide))
    assert infilling.evaluation.selection_files == 0
    assert infilling.evaluation.message.endswith(" The same files chose the checkpoint.")


def test_every_mark_is_kept_and_no_text(infilling: "Store", wide: dict[str, str]) -> None:
    infilling.train(infilling.config(**wide))
    told = (infilling.root / "run" / "evaluation.json").read_text()
    marks = json.loads(told)
    for model in ("base", "tuned"):
        assert len(marks[model]["lines"]) == len(marks[model]["middles"]) == 16
        exact = sum(mark["exact"] for mark in marks[model]["lines"]) / 16
        assert exact == getattr(infilling.evaluation, model).exact_match
    assert "def more" not in told


def test_a_model_without_the_tokens_says_that_it_is_trained_without_them(store: "Store") -> None:
    events = store.train(store.config())
    (parameters,) = [event.parameters for event in events if isinstance(event, ParametersEvent)]
    assert (parameters.fim_rate, parameters.fim_format) == (0.0, "")
    assert parameters.notes == ["Trained without fill-in-the-middle: this model has no tokens for it."]
    assert store.evaluation.base.infill_exact_match is None


def test_a_model_with_the_tokens_names_the_format(infilling: "Store") -> None:
    infilling.train(infilling.config())
    assert (infilling.result.parameters.fim_rate, infilling.result.parameters.notes) == (0.9, [])
    assert infilling.result.parameters.fim_format == "StarCoder's tokens"


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-5])


def _of_another_sample(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "sample": "0" * 64}))


@pytest.mark.parametrize(
    ("measured", "change"),
    [
        pytest.param(False, lambda _: None, id="kept"),
        pytest.param(True, _cut, id="cut short"),
        pytest.param(True, _of_another_sample, id="of another sample"),
        pytest.param(True, Path.unlink, id="gone"),
    ],
)
def test_an_attempt_that_goes_on_measures_the_base_again_only_where_it_must(
    store: "Store", measured: bool, change: Any
) -> None:
    store.train(store.config())
    first = store.evaluation
    change(store.root / "run" / "baseline.json")
    events = store.train(store.config())
    assert any(isinstance(event, StageEvent) and event.stage == "Baseline" for event in events) is measured
    assert store.evaluation == first


def test_a_run_stops_by_itself_when_the_held_out_loss_rises(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([5.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("codetune_trainer.train.scoring.evaluating.mean_loss", lambda *_: next(losses))
    store.train(store.config(training={"max_steps": 20}, checkpoints=Checkpoints(every_steps=2, keep=1)))
    assert store.result.parameters.early_stopping is not None
    assert store.result.parameters.early_stopping.patience == 2
    assert (store.result.steps, store.result.best_checkpoint) == (6, "step-000002")


def test_a_held_out_file_that_is_trained_on_with_other_white_space_is_not_evaluated(
    store: "Store", code: "Callable[[str, int], str]"
) -> None:
    text = code("add", 12)
    config = store.config(**store.add_dataset("near", [text], [text.replace("\n", " \r\n"), code("more", 8)]))
    store.train(config)
    assert store.evaluation.files == 1
