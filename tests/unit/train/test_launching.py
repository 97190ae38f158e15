"""The launcher: which command starts the processes of a node, where nodes meet, and what their exit codes mean."""

import importlib.util
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import pytest
from codetune_api.contracts import ENV_HOSTS, ENV_LEADER, ENV_SCRATCH, ENV_STORE, TrainConfig
from codetune_api.finetune import LoraOverrides
from codetune_trainer import launching, train
from codetune_trainer.errors import InvalidParameters, PeerMissing

if TYPE_CHECKING:
    from unit.train.conftest import Store


@pytest.mark.parametrize(
    ("nodes", "codes", "status", "stopped", "expected"),
    [
        pytest.param(2, [0, 0], 0, False, 0, id="all are done"),
        pytest.param(2, [143, 143], 1, True, 143, id="all were stopped"),
        pytest.param(2, [143, 143], 0, False, 143, id="all were stopped because another node was"),
        pytest.param(2, [75, 75], 1, False, 75, id="another node has failed"),
        pytest.param(2, [75], 1, False, 1, id="one was killed, which the other noticed"),
        pytest.param(2, [], -9, False, 1, id="torchrun was killed"),
        pytest.param(2, [64, 75], 1, False, 64, id="one refuses for good"),
        pytest.param(2, [1, 75], 1, False, 1, id="one has failed"),
        pytest.param(2, [], -15, True, 143, id="stopped before anything began"),
        pytest.param(2, [143, 75], 1, True, 143, id="stopped while the others left"),
        pytest.param(2, [1], 1, True, 1, id="failed while it was stopped"),
        pytest.param(2, [], 1, False, 1, id="NCCL has ended all, for a lost node or for an error of its own"),
        pytest.param(2, [143], 1, False, 1, id="NCCL has ended one, and so torchrun the other"),
        pytest.param(1, [75, 75], 1, False, 1, id="nobody says why, and no other node can be the cause"),
        pytest.param(1, [75], 1, False, 1, id="one was killed, on the only node"),
        pytest.param(1, [1, 75], 1, False, 1, id="one has failed, on the only node"),
        pytest.param(1, [143, 75], 1, True, 143, id="the only node was stopped while the others left"),
    ],
)
def test_what_the_processes_leave_says_how_the_pod_ends(
    nodes: int, codes: Sequence[int], status: int, stopped: bool, expected: int
) -> None:
    assert launching.judge(codes, 2, status, stopped=stopped, nodes=nodes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, False, id="CPU"),
        pytest.param({"gpus": 1}, False, id="one GPU"),
        pytest.param({"gpus": 2}, True, id="two GPUs"),
        pytest.param({"nodes": 2}, True, id="two nodes without GPUs"),
        pytest.param({"gpus": 1, "nodes": 2}, True, id="two nodes with a GPU each"),
    ],
)
def test_one_process_needs_no_launcher(store: "Store", changes: dict[str, int], expected: bool) -> None:
    assert launching.needs_launcher(store.config(**changes)) is expected


@pytest.mark.parametrize(("expected", "quantization"), [(False, None), (True, "Nf4")], ids=["16 bits", "4 bits"])
def test_only_a_base_in_4_bits_waits_for_the_library_of_4_bits(
    store: "Store", monkeypatch: pytest.MonkeyPatch, expected: bool, quantization: Literal["Nf4"] | None
) -> None:
    config = store.config(lora=LoraOverrides(quantization=quantization))
    found = []

    def find_library(_: TrainConfig) -> int:
        found.append(importlib.util.find_spec("bitsandbytes") is not None)
        return 0

    for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(train, "load_config", lambda _: config)
    monkeypatch.setattr(train, "bring", lambda *_: None)
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(main=find_library))
    for place in (ENV_STORE, ENV_SCRATCH):
        monkeypatch.setenv(place, str(store.root))
    assert train.main() == 0
    assert found == [expected]
    sys.modules.pop("bitsandbytes", None)


def test_the_gpus_of_one_node_meet_on_it(store: "Store") -> None:
    command = launching.build_command(store.config(gpus=4))
    assert "--standalone" in command
    assert command[command.index("--nproc-per-node") + 1] == "4"
    assert command[-3:] == ["-m", "codetune_trainer", "train"]


def test_nodes_meet_at_the_address_of_the_first_pod(
    store: "Store", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("127.1.2.3 run-0.nodes.team.svc run-0.nodes\n127.1.2.4 run-1.nodes.team.svc\n")
    monkeypatch.setenv(ENV_HOSTS, str(tmp_path / "hosts"))
    monkeypatch.setenv(ENV_LEADER, "run-0.nodes.team.svc:29500")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    command = launching.build_command(store.config(nodes=2))
    told = dict(itertools.pairwise(command))
    assert (told["--nnodes"], told["--node-rank"], told["--nproc-per-node"]) == ("2", "1", "1")
    assert (told["--master-addr"], told["--master-port"]) == ("127.1.2.3", "29500")


def test_a_first_pod_that_never_gets_an_address_is_given_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hosts").write_text("127.1.2.4 run-1\n")
    monkeypatch.setenv(ENV_HOSTS, str(tmp_path / "hosts"))
    monkeypatch.setattr(launching, "_LOOK_SECONDS", 0.01)
    with pytest.raises(PeerMissing, match="run-0 of this run"):
        launching.find_address("run-0", until=time.monotonic() + 0.1)
    assert capsys.readouterr().out.count("Waiting for the address of the run's pod with index 0, run-0") == 1


def test_a_first_pod_that_gets_an_address_later_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([OSError("no such name"), OSError("no such name"), "run-0"])

    def look_up(_host: str) -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(launching, "_look_up", look_up)
    monkeypatch.setattr(launching, "_LOOK_SECONDS", 0.01)
    assert launching.find_address("run-0", until=time.monotonic() + 60) == "run-0"
    waiting, found = capsys.readouterr().out.splitlines()
    assert waiting.startswith("Waiting for the address")
    assert found == "run-0 has an address now."


def test_several_nodes_without_a_place_to_meet_are_refused(store: "Store", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_LEADER, raising=False)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(InvalidParameters, match="2 nodes"):
        launching.build_command(store.config(nodes=2))
