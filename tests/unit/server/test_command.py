"""What `serve` makes of its arguments and of the machine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from codetune_server.machine import Machine
from codetune_server.serving import build_command, choose_tokenizer, serve

FOUR_CORES = Machine(cores=(0, 1, 2, 3), memory_bytes=16 << 30)
START = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
END = [
    *("--shutdown-timeout", "60"),
    *("--middleware", "codetune_server.infilling.InfillMiddleware"),
    *("--middleware", "codetune_server.middleware.AdapterMiddleware"),
]


def test_on_a_gpu_vllm_gets_its_arguments_the_address_and_the_middleware() -> None:
    command = build_command(["--model", "/m", "--enable-lora"], {"PATH": "/bin"}, FOUR_CORES)
    assert command.argv == [*START, "--model", "/m", "--enable-lora", "--host", "0.0.0.0", *END]
    assert command.environment == {
        "PATH": "/bin",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_MAX_STOP_STRINGS": "32",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "CODETUNE_TOKENIZER": "/m",
        "CODETUNE_MAX_LORA_RANK": "16",
    }


def test_on_a_cpu_vllm_computes_on_all_cores_in_float32() -> None:
    command = build_command(["--model", "/m"], {"CODETUNE_DEVICE": "cpu"}, FOUR_CORES)
    assert command.argv == [
        *START,
        *("--model", "/m", "--enable-lora", "--host", "0.0.0.0", *END),
        *("--dtype", "float32", "--enforce-eager"),
    ]
    assert command.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,2,3"
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        pytest.param(["--dtype", "bfloat16"], "float32", id="dtype"),
        pytest.param(["--dtype=bfloat16"], "float32", id="dtype with ="),
        pytest.param(["--no-enforce-eager"], "--enforce-eager", id="eager refused"),
    ],
)
def test_what_the_arguments_say_stays(arguments: list[str], absent: str) -> None:
    assert absent not in build_command(arguments, {"CODETUNE_DEVICE": "cpu"}, FOUR_CORES).argv


def test_the_dtype_auto_leaves_the_choice_to_us() -> None:
    argv = build_command(["--dtype", "auto"], {"CODETUNE_DEVICE": "cpu"}, FOUR_CORES).argv
    assert argv[argv.index("float32") - 1] == "--dtype"


def test_what_the_environment_says_stays() -> None:
    given = {"CODETUNE_DEVICE": "cpu", "VLLM_CPU_OMP_THREADS_BIND": "1", "VLLM_CPU_KVCACHE_SPACE": "7"}
    environment = build_command([], given, FOUR_CORES).environment
    assert (environment["VLLM_CPU_OMP_THREADS_BIND"], environment["VLLM_CPU_KVCACHE_SPACE"]) == ("1", "7")


@pytest.mark.parametrize(
    ("rank", "arguments"),
    [
        pytest.param("64", ["--max-lora-rank", "64"], id="two words"),
        pytest.param("64", ["--max-lora-rank=64"], id="one word"),
        pytest.param("64", ["--max_lora_rank", "64"], id="underscores"),
        pytest.param("16", ["--enable-lora", "--max-loras", "4"], id="vLLM's default"),
    ],
)
def test_the_middleware_learns_the_highest_rank(rank: str, arguments: list[str]) -> None:
    assert build_command(arguments, {}, FOUR_CORES).environment["CODETUNE_MAX_LORA_RANK"] == rank


@pytest.mark.parametrize(("address", "has_ipv6"), [("::", True), ("0.0.0.0", False)])
def test_a_pod_listens_on_addresses_of_both_families_where_there_are_both(address: str, has_ipv6: bool) -> None:
    argv = build_command([], {}, replace(FOUR_CORES, has_ipv6=has_ipv6)).argv
    assert argv[argv.index("--host") + 1] == address


def test_the_address_comes_from_the_environment_unless_the_arguments_have_one() -> None:
    bound = {"CODETUNE_BIND_HOST": "127.1.2.3"}
    assert "127.1.2.3" in build_command([], bound, FOUR_CORES).argv
    assert "127.1.2.3" not in build_command(["--host", "::1"], bound, FOUR_CORES).argv


@pytest.mark.parametrize(
    ("threads", "quota", "asked"),
    [
        pytest.param("2", 2, None, id="a quota"),
        pytest.param("3", None, "3", id="a request"),
        pytest.param("2", 2, "3", id="a request above the quota"),
        pytest.param("1", 8, "1", id="a request below the quota"),
    ],
)
def test_a_part_of_the_nodes_cpu_limits_the_threads_and_binds_none(
    threads: str, quota: int | None, asked: str | None
) -> None:
    machine = Machine(cores=tuple(range(64)), memory_bytes=1 << 40, quota=quota)
    given = {"CODETUNE_DEVICE": "cpu", **({"CODETUNE_CPUS": asked} if asked else {})}
    environment = build_command([], given, machine).environment
    assert (environment["VLLM_CPU_OMP_THREADS_BIND"], environment["OMP_NUM_THREADS"]) == ("nobind", threads)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "4"


@pytest.mark.parametrize("asked", ["4", "64"])
def test_a_pod_that_asked_for_all_its_cores_is_bound_to_them(asked: str) -> None:
    environment = build_command([], {"CODETUNE_DEVICE": "cpu", "CODETUNE_CPUS": asked}, FOUR_CORES).environment
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,2,3"
    assert "OMP_NUM_THREADS" not in environment


def test_several_workers_share_the_cores_as_vllm_sees_fit() -> None:
    environment = build_command(["-tp", "2"], {"CODETUNE_DEVICE": "cpu"}, FOUR_CORES).environment
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment


@pytest.mark.parametrize(
    ("cpu", "memory", "quota", "limit"),
    [
        pytest.param("150000 100000", "1073741824", 2, 1 << 30, id="limited"),
        pytest.param("max 100000", "max", None, None, id="unlimited"),
        pytest.param(None, None, None, None, id="no cgroup"),
    ],
)
def test_the_limits_of_a_container_are_read(
    cpu: str | None, memory: str | None, quota: int | None, limit: int | None, tmp_path: Path
) -> None:
    for name, text in (("cpu.max", cpu), ("memory.max", memory)):
        if text:
            (tmp_path / name).write_text(f"{text}\n")
    machine = Machine.here(tmp_path)
    assert machine.quota == quota
    assert machine.memory_bytes == limit if limit else machine.memory_bytes > 1 << 30
    assert machine.cores


def test_the_command_line_tells_its_version() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "codetune_server", "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout.startswith("codetune-server 0.")


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        pytest.param("GPT2Tokenizer", [], True, id="one that would be misread"),
        pytest.param("PreTrainedTokenizerFast", [], False, id="one that is read as it is"),
        pytest.param("GPT2Tokenizer", ["--tokenizer", "other"], False, id="another one is named"),
    ],
)
def test_vllm_reads_a_tokenizer_as_it_was_published(tmp_path: Path, kind: str, more: list[str], expected: bool) -> None:
    model, scratch = tmp_path / "model", tmp_path / "scratch"
    model.mkdir()
    scratch.mkdir()
    steps = {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]}
    (model / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": steps, "model": {"vocab": {"a": 0}}}))
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    found = choose_tokenizer(["--model", str(model), *more], scratch)
    assert found == (["--tokenizer", str(scratch)] if expected else [])
    assert bool(list(scratch.iterdir())) is expected


def test_a_tokenizer_that_is_no_json_is_left_to_vllm(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{")
    assert choose_tokenizer(["--model", str(tmp_path)], tmp_path) == []
    assert choose_tokenizer(["--model", "org/name"], tmp_path) == []


def test_a_model_that_may_not_be_read_is_told_before_vllm_calls_it_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").touch(0o600)
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path).suffix != ".safetensors")
    with pytest.raises(SystemExit, match=r"runs as user \d+, which may not read \S+/model\.safetensors$"):
        serve(["--model", str(tmp_path)])
