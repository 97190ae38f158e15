"""What a model says on our server, and by transformers and PEFT alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter, DesiredAdapters, ServerReport
from codetune_api.digests import FileEntry, digest_files

if TYPE_CHECKING:
    from e2e.conftest import Server, TinyModel

TOKEN = "e2e-token"
BASE_URI = "hf://org/tiny@main"
PROMPT = "".join(f"def add_{number}(value):\n    return value + {number}\n\n" for number in range(4))[:140]
"""Longer than a block of vLLM's cache on a CPU (128 tokens), so that what is cached of it is used."""
TOKENS = 12


@dataclass
class Serving:
    """Our server with its store."""

    server: "Server"
    store: Path
    model: "TinyModel"

    def adapter(self, name: str, folder: str) -> DesiredAdapter:
        """A folder of the store, wanted under a name with the digest that it has."""
        return DesiredAdapter(name=name, path=folder, digest=digest_of(self.store / folder))

    def put(self, *adapters: DesiredAdapter) -> ServerReport:
        """What the operator does."""
        answer = httpx.put(
            f"{self.server.url}/codetune/adapters?wait=30",
            json=DesiredAdapters(adapters=list(adapters)).to_wire(),
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return ServerReport.from_wire(answer.json())

    def client(self) -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key="none", max_retries=0)

    def say(self, model: str) -> tuple[list[int], list[float]]:
        """Greedy token ids and their log-probabilities."""
        return say(self.server.url, model)


def say(url: str, model: str) -> tuple[list[int], list[float]]:
    body = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "logprobs": 0}
    extra = {"return_token_ids": True, "ignore_eos": True}
    answer = httpx.post(f"{url}/v1/completions", json={**body, **extra}, timeout=60)
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"]


def digest_of(folder: Path) -> str:
    import hashlib

    data = {file: (folder / file).read_bytes() for file in ADAPTER_FILES}
    return digest_files(
        {file: FileEntry(sha256=hashlib.sha256(d).hexdigest(), bytes=len(d)) for file, d in data.items()}
    )


def oracle(model: Path, adapter: Path | None) -> tuple[list[int], list[float]]:
    """The same as `say`, by transformers and PEFT alone."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        network = PeftModel.from_pretrained(network, str(adapter))
    network.eval()
    tokens = AutoTokenizer.from_pretrained(model)(PROMPT, return_tensors="pt").input_ids
    start, logprobs = tokens.shape[1], []
    with torch.no_grad():
        for _ in range(TOKENS):
            scores = torch.log_softmax(network(input_ids=tokens).logits[0, -1], dim=-1)
            best = scores.argmax()
            logprobs.append(scores[best].item())
            tokens = torch.cat([tokens, best.view(1, 1)], dim=1)
    return tokens[0, start:].tolist(), logprobs
