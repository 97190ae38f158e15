"""A tiny model with adapters, real vLLM processes, and two replicas of ours: what the end-to-end tests stand on.

The model is a random Llama of three layers, so that vLLM starts in seconds; its adapters are made by PEFT itself.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from fleet import VERSIONS, Fleet
from replicas import BASE_URI

START_SECONDS = 180
STOP_SECONDS = 30
VOCABULARY = 264


@dataclass(frozen=True)
class TinyModel:
    """A model folder and a way to make adapters for it."""

    folder: Path

    def make_adapter(
        self, folder: Path, *, seed: int, rank: int = 8, base_model: str | None = None, embeddings: bool = False
    ) -> Path:
        """Write a random LoRA adapter that changes what the model says; returns its folder."""
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(seed)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        targets += ["embed_tokens", "lm_head"] if embeddings else []
        config = LoraConfig(
            r=rank, lora_alpha=4 * rank, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM"
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(self.folder), config)
        model.save_pretrained(str(folder), save_embedding_layers=False)
        if base_model:
            path = folder / "adapter_config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base_model}))
        return folder


@dataclass
class Server:
    """A running server process."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait_until_healthy(self, seconds: float = START_SECONDS) -> None:
        """Return once vLLM's own health route answers. Raises: AssertionError with the log's end."""
        deadline = time.monotonic() + seconds
        while not self.answers("/health"):
            alive = self.process.poll() is None and time.monotonic() < deadline
            assert alive, f"the server did not start; its log ends with:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.25)

    def answers(self, path: str) -> bool:
        """Whether a route answers 200 now."""
        try:
            return httpx.get(self.url + path, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End the server with everything that it started."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A random Llama with a byte-level tokenizer, in the normal layout of a model folder."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny-llama")


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Another one, whose output head has the weights of its embeddings."""
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tied-llama", tied=True)


def make_tiny_model(folder: Path, *, tied: bool = False) -> TinyModel:
    """Write a model folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,  # 32 wide: the narrowest head that vLLM computes on a CPU
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder))  # type: ignore[no-untyped-call]
    build_tokenizer().save_pretrained(str(folder))
    return TinyModel(folder)


FILL_IN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>")
"""CodeGemma's tokens around what is filled in."""


def build_tokenizer() -> Any:
    """One token a byte, plus begin and end of text, those to fill in between two texts, and a chat template."""
    from byte_tokenizer import build_byte_tokenizer

    tokenizer = build_byte_tokenizer(*FILL_IN)
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    return tokenizer


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start a command as a server on a free loopback port; all of them are stopped at the end.

    The command may use `{port}`; `environment` is added to this process's own.
    """
    servers: list[Server] = []

    def start(*command: str, environment: dict[str, str] | None = None) -> Server:
        port = free_port()
        log = tmp_path_factory.mktemp("server") / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *(word.format(port=port) for word in command)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", **(environment or {})},
                start_new_session=True,
            )
        servers.append(Server(f"http://127.0.0.1:{port}", log, process))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="package")
def fleet(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas that hold the first four versions; each test that changes them puts that right."""
    root = tmp_path_factory.mktemp("fleet")
    for seed, version in enumerate(VERSIONS, start=11):
        tiny_model.make_adapter(root / "store" / version, seed=seed, base_model=BASE_URI)
    started = Fleet.prepare(root, tiny_model.folder)
    try:
        started.start()
        yield started
    finally:
        started.stop()
