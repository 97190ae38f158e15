"""A tiny random Llama with a byte-level tokenizer, a dataset of generated code, and runs of the trainer on them."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from byte_tokenizer import STARCODER, build_byte_tokenizer
from codetune_api.contracts import (
    ENV_CONFIG,
    ENV_MODEL,
    ENV_SCRATCH,
    ENV_STORE,
    ENV_TERMINATION_LOG,
    DatasetFile,
    DatasetManifest,
    TrainConfig,
    TrainResult,
)
from codetune_api.digests import FileEntry, digest_value
from codetune_api.finetune import Checkpoints, Evaluation, LoraOverrides, TrainingOverrides
from codetune_api.project import FileCounts
from codetune_api.protocol import Event, ResultEvent, parse
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.pacing import StopSignal
from codetune_trainer.train.run import train
from transformers import LlamaConfig, LlamaForCausalLM

TRAIN = ("-m", "codetune_trainer", "train")
NONCE = "0123456789abcdef"
BASE_MODEL = "file:///tiny"


def make_model(folder: Path, tokenizer: Any = None, **settings: Any) -> Path:
    """A model folder as the hub has them."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.1,
        "bos_token_id": 256,
        "eos_token_id": 257,
    }
    LlamaForCausalLM(LlamaConfig(**{**shape, **settings})).save_pretrained(str(folder))
    (tokenizer or build_byte_tokenizer()).save_pretrained(str(folder))
    return folder


def write_dataset(folder: Path, train: Sequence[str], holdout: Sequence[str] = ()) -> str:
    """A dataset as a scan leaves it; returns its revision."""
    folder.mkdir(parents=True)
    rows = [
        DatasetFile(
            path=f"code/{split}{index}.py",
            type="Python",
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            split="train" if split == "train" else "holdout",
            text=text,
        )
        for split, texts in (("train", train), ("holdout", holdout))
        for index, text in enumerate(texts)
    ]
    data = "".join(json.dumps(row.to_wire()) + "\n" for row in rows).encode()
    (folder / "files.jsonl").write_bytes(data)
    revision = digest_value([[row.path, row.sha256, row.split] for row in rows])
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    manifest = DatasetManifest(revision=revision, sources=[], files=FileCounts(), artifacts={"files.jsonl": entry})
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True))
    return revision


def write_code(name: str, lines: int) -> str:
    """Regular text that a tiny model learns within a few steps."""
    return "".join(f"def {name}_{index}(value):\n    return value + {index}\n\n" for index in range(lines))


class StopAfter(StopSignal):
    """SIGTERM that comes at a known place: with the n-th look at the signal."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._left = looks

    def check(self) -> None:
        """Counts down."""
        self._left -= 1
        self.is_set = self._left < 0
        super().check()


class Process:
    """`python -m codetune_trainer train`, as a Job starts it."""

    def __init__(self, store: "Store", config: TrainConfig, arguments: Sequence[str], **environment: str) -> None:
        path = store.root / f"{config.output}.json"
        if not path.exists():
            path.write_text(config.model_dump_json(by_alias=True, exclude_none=True))
        self.termination = store.root / "termination"
        places = {
            ENV_CONFIG: path,
            ENV_STORE: store.root,
            ENV_SCRATCH: store.root,
            ENV_MODEL: store.model,
            ENV_TERMINATION_LOG: self.termination,
        }
        told = {**{key: str(value) for key, value in places.items()}, "OMP_NUM_THREADS": "1", **environment}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **told},
        )
        self._nonce = config.nonce
        self.pid = self._process.pid
        self.output: list[str] = []

    def wait_for(self, is_wanted: Callable[[Event], bool]) -> None:
        """Read on until an event comes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output.append(line)
            event = parse(line, self._nonce)
            if event is not None and is_wanted(event):
                return
        raise AssertionError("the run ended before that:\n" + "".join(self.output)[-3000:])

    def end(self, number: int | None = None) -> int:
        """Send a signal where one is given, and wait; returns the exit status."""
        if number is not None:
            self._process.send_signal(number)
        self.output.append(self._process.communicate(timeout=100)[0])
        return self._process.returncode

    @property
    def events(self) -> list[Event]:
        """What it has said so far."""
        return read_events("".join(self.output))


@dataclass
class Store:
    """An artifact store with a dataset and the folders of runs."""

    root: Path
    model: Path
    revision: str
    said: Callable[[], str]
    status: int = 0
    """Exit status of the last run."""
    events: list[Event] = field(default_factory=list)
    """What the last run said."""

    @property
    def result(self) -> TrainResult:
        """What the last line of the last run carries."""
        last = self.events[-1]
        assert isinstance(last, ResultEvent)
        assert last.train is not None
        return last.train

    @property
    def evaluation(self) -> Evaluation:
        """The comparison in that result."""
        found = self.result.evaluation
        assert found is not None
        return found

    def add_dataset(self, name: str, train: Sequence[str], holdout: Sequence[str] = ()) -> dict[str, str]:
        """Another dataset; returns what a configuration must say to use it."""
        return {"dataset": name, "dataset_revision": write_dataset(self.root / name, train, holdout)}

    def stop_after(self, looks: int) -> StopSignal:
        """SIGTERM that comes with the n-th look at the signal."""
        return StopAfter(looks)

    def config(self, run: str = "run", **changes: Any) -> TrainConfig:
        """A short run in float32, with dropout, so that a resume must get the random state right too."""
        training = {
            "max_steps": 6,
            "sequence_length": 64,
            "batch_tokens": 256,
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "precision": "Float32",
            **changes.pop("training", {}),
        }
        fields: dict[str, Any] = {
            "nonce": NONCE,
            "namespace": "team",
            "name": "tuned",
            "dataset": "dataset",
            "dataset_revision": self.revision,
            "output": run,
            "base_model": BASE_MODEL,
            "device": "cpu",
            "gpus": 0,
            "preset": "Smaller",
            "lora": LoraOverrides(rank=4, dropout=0.1),
            "training": TrainingOverrides(**training),
            "checkpoints": Checkpoints(every_steps=2, keep=2),
        }
        return TrainConfig(**{**fields, **changes})

    def train(self, config: TrainConfig, stop: StopSignal | None = None) -> list[Event]:
        """Run the recipe in this process; returns what it said. `status` is its exit status."""
        folder = self.root / config.output
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        self.status = train(config, self.root / config.dataset, self.model, folder, stop or StopSignal())
        self.events = read_events(self.said())
        return self.events

    def without_dropout(self, run: str = "run") -> TrainConfig:
        """Such a run whose losses do not depend on chance."""
        return self.config(run, lora=self.config().lora.model_copy(update={"dropout": 0.0}))

    def configure(self, config: TrainConfig, **changes: Any) -> TrainConfig:
        """A configuration that the next process of the run finds changed."""
        changed = config.model_copy(update=changes)
        (self.root / f"{config.output}.json").write_text(changed.model_dump_json(by_alias=True, exclude_none=True))
        return changed

    def start(self, config: TrainConfig, arguments: Sequence[str] = TRAIN, **environment: str) -> Process:
        """Run it in a process of its own."""
        return Process(self, config, arguments, **environment)

    def losses(self, run: str = "run") -> dict[int, float]:
        """Step → loss, as `metrics.jsonl` has it; of a step that was repeated, the last; None: it was no number."""
        rows = [json.loads(line) for line in (self.root / run / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows if "learningRate" in row}

    def checkpoints(self, run: str = "run") -> list[str]:
        """Names of what lies in the run's checkpoint folder."""
        return sorted(path.name for path in (self.root / run / "checkpoints").iterdir())


def read_events(output: str) -> list[Event]:
    """The protocol lines of a log."""
    return [event for line in output.splitlines() if (event := parse(line, NONCE)) is not None]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums are the same to the last bit only with the same number of threads, and a tiny model is fastest with one."""
    before = torch.get_num_threads()
    monkeypatch.setattr("codetune_trainer.train.machine.count_threads", lambda: 1)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without fill-in-the-middle tokens."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`build_byte_tokenizer`, for tests."""
    return build_byte_tokenizer


@pytest.fixture(scope="session", name="make_model")
def _make_model() -> Callable[..., Path]:
    """`make_model`, for tests."""
    return make_model


@pytest.fixture
def infilling(store: "Store", tmp_path: Path) -> "Store":
    """A store with a model that has fill-in-the-middle tokens."""
    store.model = make_model(tmp_path / "infilling", build_byte_tokenizer(*STARCODER))
    return store


@pytest.fixture
def quantizable(store: "Store", tmp_path: Path) -> "Store":
    """A store with a model whose layers are wide enough for weights in blocks of 64."""
    store.model = make_model(tmp_path / "wide", hidden_size=64, intermediate_size=128)
    return store


@pytest.fixture(scope="session")
def code() -> Callable[[str, int], str]:
    """`write_code`, for tests."""
    return write_code


@pytest.fixture
def encoder() -> Encoder:
    """The tiny model's tokenizer."""
    return build_encoder(build_byte_tokenizer())


@pytest.fixture
def store(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Store:
    """A store with a dataset of six files to train on and two held out."""
    code = [write_code(name, 12) for name in ("add", "sum", "plus", "increase", "grow", "raise")]
    revision = write_dataset(tmp_path / "dataset", code, [write_code("more", 8), write_code("extra", 8)])
    return Store(tmp_path, tiny_model, revision, lambda: capsys.readouterr().out)
