"""On a CPU, vLLM scores a prompt with the output head set for what is sampled: that is mended, request by request.

The runner and its wrapper are stand-ins of a few lines; that the figures of the real ones are right, PEFT says in
`tests/e2e/test_serving.py`.
"""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from codetune_server import scoring, sparing

SLOTS = [1, 1, 1, -1, -1, 0]
"""Of the tokens of a batch of three requests."""


class Wrapper:
    """What applies adapters, as far as it is touched."""

    def __init__(self, token_slots: list[int]) -> None:
        self._token_lora_indices = token_slots
        self._sampler_indices = [1, -1, 0, 9, 9, 9]
        self.indices_len = [len(token_slots), 3, 3, len(token_slots)]

    @property
    def slots(self) -> list[int]:
        """What the output head goes by."""
        return self._sampler_indices[: self.indices_len[1]]


def make_runner(score: Callable[..., dict[str, Any]], *, with_adapters: bool = True) -> tuple[Any, Wrapper]:
    """A mended runner with the requests a (3 tokens), b (2) and c (1), of which all but b are scored."""

    class Runner:
        def _get_prompt_logprobs_dict(self, hidden: Any, scheduled: dict[str, int]) -> dict[str, Any]:
            return score(self, scheduled)

    scoring.mend(Runner)
    scoring.mend(Runner)  # once is enough
    wrapper, runner = Wrapper(SLOTS), Runner()
    manager = SimpleNamespace(_adapter_manager=SimpleNamespace(punica_wrapper_mapping={"language": wrapper}))
    told = {
        "num_prompt_logprobs": {"a": 1, "c": 5, "waiting": 2},
        "input_batch": SimpleNamespace(req_id_to_index={"a": 0, "b": 1, "c": 2}),
        "query_start_loc": SimpleNamespace(np=[0, 3, 5, 6]),
        **({"lora_manager": manager} if with_adapters else {}),
    }
    vars(runner).update(told)
    return runner, wrapper


SCHEDULED = {"a": 3, "b": 2, "c": 1}


def test_each_prompt_is_scored_by_itself_with_the_adapter_of_its_request() -> None:
    seen: list[tuple[dict[str, int], list[int]]] = []

    def score(runner: Any, _: dict[str, int]) -> dict[str, Any]:
        asked = runner.num_prompt_logprobs
        seen.append((dict(asked), wrapper.slots))
        (request,) = asked
        if request == "a":
            return {}  # a piece of a prompt: the rest comes later
        del asked[request]
        return {request: "scores"}

    runner, wrapper = make_runner(score)
    assert runner._get_prompt_logprobs_dict(None, SCHEDULED) == {"c": "scores"}
    assert seen == [({"a": 1}, [1]), ({"c": 5}, [0])]
    assert runner.num_prompt_logprobs == {"a": 1, "waiting": 2}
    assert wrapper.slots == [1, -1, 0]


def test_what_goes_wrong_leaves_everything_as_it_was() -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    runner, wrapper = make_runner(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner._get_prompt_logprobs_dict(None, SCHEDULED)
    assert runner.num_prompt_logprobs == {"a": 1, "c": 5, "waiting": 2}
    assert wrapper.slots == [1, -1, 0]


def test_a_server_without_adapters_scores_all_at_once() -> None:
    runner, _ = make_runner(lambda runner, _: dict(runner.num_prompt_logprobs), with_adapters=False)
    assert runner._get_prompt_logprobs_dict(None, SCHEDULED) == {"a": 1, "c": 5, "waiting": 2}


def test_vllms_runner_is_mended_where_a_wrapper_is_made_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    runners = SimpleNamespace(GPUModelRunner=type("Runner", (), {"_get_prompt_logprobs_dict": lambda *_: {}}))
    plain = runners.GPUModelRunner._get_prompt_logprobs_dict
    loaded: list[str] = []

    def load(name: str) -> SimpleNamespace:
        loaded.append(name)
        return runners

    monkeypatch.setattr(scoring, "importlib", SimpleNamespace(import_module=load))
    module: Any = ModuleType("punica_cpu")
    module.PunicaWrapperCPU = type("PunicaWrapperCPU", (Wrapper,), {})
    for _ in range(2):
        scoring.mend_later(module)
    assert not loaded
    assert module.PunicaWrapperCPU(SLOTS).slots == [1, -1, 0]
    assert loaded == ["vllm.v1.worker.gpu_model_runner"]
    assert runners.GPUModelRunner._get_prompt_logprobs_dict is not plain


def test_another_version_that_has_no_such_things_is_left_alone_and_that_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scoring.mend_later(ModuleType("other"))
    scoring.mend(type("Runner", (), {}))
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "This vLLM has no PunicaWrapperCPU",
        "This vLLM has no _get_prompt_logprobs_dict",
    ]


def test_gpus_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(scoring, "mend_later", called.append)
    sparing.spare_base({"CODETUNE_DEVICE": "cuda"})
    assert not called
