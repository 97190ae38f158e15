"""How the processes of a group share rows, and what they do when they are alone."""

import pytest
import torch
from codetune_trainer.errors import PeerLost
from codetune_trainer.train.group import ALONE, Group, peer_errors
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
    ALONE.add_gradients([weight])
    assert weight.grad.tolist() == [1.0, 2.0]
    assert (ALONE.agree(3), ALONE.add(0.5), ALONE.lead(lambda: "told"), ALONE.leads) == (3, 0.5, "told", True)
    with ALONE.leader_first():
        assert ALONE.spread(weight) is weight


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer"), PeerLost, id="gloo"),
        pytest.param(torch.distributed.DistBackendError("NCCL error"), PeerLost, id="NCCL"),
        pytest.param(RuntimeError("shapes do not fit"), RuntimeError, id="a fault of our own"),
        pytest.param(torch.OutOfMemoryError("short"), torch.OutOfMemoryError, id="memory"),
    ],
)
def test_an_error_that_a_lost_process_caused_is_told_from_others(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught, peer_errors():
        raise error
    assert type(caught.value) is expected
