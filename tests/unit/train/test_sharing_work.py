"""How the processes of a group share rows, what they do when they are alone, and how errors of their backends are told
apart. The words of NCCL are those that it is known to say; none of it runs here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from codetune_trainer.errors import EXIT_RETRY, PeerLost, PeerMissing, run_to_exit_code
from codetune_trainer.train.group import ALONE, Group, join, peer_errors
from hypothesis import given
from hypothesis import strategies as st


@given(rows=st.integers(1, 40), at_once=st.integers(1, 9), size=st.integers(1, 9))
def test_each_row_counts_once_and_all_processes_make_the_same_number_of_passes(
    rows: int, at_once: int, size: int
) -> None:
    turns = [list(Group(rank, size).take_turns(rows, at_once)) for rank in range(size)]
    taken = [row for own in turns for part, counts in own if counts for row in range(rows)[part]]
    assert sorted(taken) == list(range(rows))
    assert len({len(own) for own in turns}) == 1
    assert all(len(range(rows)[part]) <= at_once for own in turns for part, _ in own)
    assert all(range(rows)[part] for own in turns for part, _ in own)  # nobody passes an empty batch


def test_one_process_alone_agrees_with_itself() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([1.0, 2.0])
    ALONE.add_gradients([weight], lambda: None)
    assert weight.grad.tolist() == [1.0, 2.0]
    assert (ALONE.agree(3), ALONE.add(0.5), ALONE.lead(lambda: "told"), ALONE.leads) == (3, 0.5, "told", True)
    with ALONE.leader_first():
        assert ALONE.spread(weight) is weight


_NCCL = "NCCL error in: ProcessGroupNCCL.cpp:94, "
_NO_NETWORK = torch.distributed.DistBackendError(
    _NCCL + "unhandled system error, NCCL version 2.28.9\nncclSystemError: System call failed.\nLast error:\n"
    "Bootstrap : no socket interface found"
)
_ERRORS = [
    pytest.param(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"), PeerLost, id="gloo"),
    pytest.param(RuntimeError("[gloo/transport/tcp/pair.cc] Read error: timed out"), PeerLost, id="a node that is off"),
    pytest.param(
        torch.distributed.DistBackendError(
            _NCCL + "remote process exited or there was a network error, NCCL version 2.28.9\nncclRemoteError: A call "
            "failed possibly due to a network error or a remote process exiting prematurely."
        ),
        PeerLost,
        id="NCCL",
    ),
    pytest.param(_NO_NETWORK, torch.distributed.DistBackendError, id="NCCL without a network"),
    pytest.param(
        RuntimeError("[enforce fail at gloo/transport/tcp/pair.cc:446] op.preamble.length <= op.nbytes. 8 vs 4"),
        RuntimeError,
        id="gloo gets another message than it expects",
    ),
    pytest.param(RuntimeError("CUDA error: an illegal memory access"), RuntimeError, id="CUDA"),
    pytest.param(RuntimeError("shapes do not fit"), RuntimeError, id="a fault of our own"),
    pytest.param(torch.OutOfMemoryError("short"), torch.OutOfMemoryError, id="memory"),
]


@pytest.mark.parametrize(("error", "expected"), _ERRORS)
def test_an_error_that_a_lost_process_caused_is_told_from_others(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, peer_errors():
        raise error
    assert type(caught.value) is expected


@pytest.mark.parametrize(("error", "expected"), _ERRORS)
@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda group: group.agree(1), id="agree"),
        pytest.param(lambda group: group.add(1.0), id="add"),
        pytest.param(
            lambda group: group.add_gradients([torch.nn.Parameter(torch.ones(2))], lambda: None), id="gradients"
        ),
        pytest.param(lambda group: group.spread(torch.ones(2)), id="spread"),
    ],
)
def test_so_it_is_in_everything_that_processes_do_together(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Group], object], error: Exception, expected: type[Exception]
) -> None:
    for name in ("all_reduce", "broadcast"):
        monkeypatch.setattr(torch.distributed, name, _raise(error))
    with pytest.raises(expected) as caught:
        work(Group(0, 2))
    assert type(caught.value) is expected


def test_nobody_is_waited_for_who_has_no_memory_for_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: done.append("sum"))
    Group(0, 2).add_gradients([torch.nn.Parameter(torch.ones(2))], lambda: done.append("look"))
    assert done == ["look", "sum"]
    monkeypatch.setattr(torch, "cat", _raise(torch.OutOfMemoryError("short")))
    with pytest.raises(torch.OutOfMemoryError):
        Group(0, 2).add_gradients([torch.nn.Parameter(torch.ones(2))], lambda: done.append("look"))
    assert done == ["look", "sum"]


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def _let_join(monkeypatch: pytest.MonkeyPatch, gpus: int) -> list[str]:
    """A process of two, with so many GPUs but no library for them; returns what it does together, as it does it."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait for the GPU"))
    monkeypatch.setattr(torch, "zeros", lambda *_, device: torch.ones(1))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, timeout: done.append(backend))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, *_: done.append(str(tensor.dtype)))
    return done


def test_gpus_are_connected_before_anything_else_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _let_join(monkeypatch, gpus=2)
    assert join("cuda") == Group(1, 2, 2)
    assert done == ["cpu:gloo,cuda:nccl", "torch.int64", "torch.float32", "wait for the GPU"]


def test_gpus_do_not_wait_for_a_process_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _let_join(monkeypatch, gpus=1)
    assert join("cuda") == Group(1, 2, 2)
    assert done == ["cpu:gloo,cuda:nccl", "torch.int64"]


@pytest.mark.parametrize("place", ["init_process_group", "all_reduce"])
def test_processes_that_cannot_connect_count_as_a_failure_and_say_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    _let_join(monkeypatch, gpus=2)
    if place == "all_reduce":
        monkeypatch.setattr(Group, "agree", lambda *_: 0)
    monkeypatch.setattr(torch.distributed, place, _raise(_NO_NETWORK))
    with pytest.raises(PeerMissing, match="no socket interface found") as caught:
        join("cuda")
    words = tmp_path / "words"
    assert run_to_exit_code(_raise(caught.value), words) == EXIT_RETRY
    assert "no socket interface found" in words.read_text()


def test_who_misses_a_process_leaves_it_the_last_word(tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.write_text("why it ended")
    for error in (PeerMissing("not there"), PeerLost("gone")):
        run_to_exit_code(_raise(error), words)
        assert words.read_text() == "why it ended"
