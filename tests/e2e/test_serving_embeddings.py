"""An adapter on the token embeddings and the output head of a model that has one weight for both, served by vLLM: each
has an update of its own, as PEFT computes it, who is the oracle.

Models with a weight for each are part of the story of `test_serving.py`.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from load import PROMPT, TOKENS, Says, ask, is_same
from oracle import listen
from replicas import BASE_URI, digest_folder

if TYPE_CHECKING:
    from e2e.conftest import Server, TinyModel

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    # PEFT's word that the two updates are apart is what this is about.
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
]


def test_a_tied_model_with_an_adapter_on_both_says_what_peft_says(
    tied_model: "TinyModel", start_server: "Callable[..., Server]", tmp_path: Path
) -> None:
    wide = tied_model.make_adapter(tmp_path / "store" / "wide", seed=41, base_model=BASE_URI, embeddings=True)
    wanted = DesiredAdapter(name="wide", path="wide", digest=digest_folder(wide))
    (tmp_path / "adapters.json").write_text(json.dumps(DesiredAdapters(adapters=[wanted]).to_wire()))
    (tmp_path / "token").write_text("token")
    server = start_server(
        *("-m", "codetune_server", "serve", "--", "--model", str(tied_model.folder), "--served-model-name", "base"),
        *("--port", "{port}", "--max-model-len", "512", "--max-loras", "1", "--max-lora-rank", "16"),
        environment={
            "CODETUNE_STORE": str(tmp_path / "store"),
            "CODETUNE_ADAPTERS": str(tmp_path / "adapters.json"),
            "CODETUNE_ADAPTER_TOKEN_FILE": str(tmp_path / "token"),
            "CODETUNE_BASE_MODEL": BASE_URI,
            "CODETUNE_BIND_HOST": "127.0.0.1",
            "CODETUNE_DEVICE": "cpu",
        },
    )
    server.wait_until_healthy()
    folders = {"wide": wide, "base": None}
    # The only slot is the last one too, which vLLM by itself takes for that of requests without an adapter.
    for (name, folder), (status, said) in zip(folders.items(), asyncio.run(_ask(server.url, *folders)), strict=True):
        assert status == 200
        assert is_same(said, listen(tied_model.folder, folder, PROMPT, TOKENS)), name


async def _ask(url: str, *names: str) -> list[tuple[int, Says]]:
    async with httpx.AsyncClient(timeout=60) as client:
        return await asyncio.gather(*(ask(client, url, name) for name in names))
