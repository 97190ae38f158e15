"""Two replicas with API keys that share a store, told of their adapters as the operator tells pods."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from load import PROMPT, TOKENS, Says
from oracle import listen
from replicas import Replica, bearer, desire, make_replica

KEY = "sk-of-a-team"
VERSIONS = [f"v{number}" for number in range(1, 7)]
START = dict(zip("abcd", VERSIONS, strict=False))
"""Model name → version at the start."""
ARGUMENTS = ["--max-model-len", "512", "--max-loras", "2", "--max-lora-rank", "16"]
"""Four adapters on two slots, none kept in memory besides: vLLM reads them from disk again and again."""


@dataclass
class Fleet:
    """The replicas and what their adapters say."""

    replicas: list[Replica]
    root: Path
    model: Path
    expected: dict[str, Says] = field(default_factory=dict)

    @classmethod
    def prepare(cls, root: Path, model: Path) -> "Fleet":
        """Replicas that are not started yet; the versions lie in `root/store`."""
        (root / "keys").mkdir()
        (root / "keys" / "team").write_text(f"{KEY}\n")
        return cls([make_replica(root, name, model, ARGUMENTS) for name in ("first", "second")], root, model)

    def start(self) -> None:
        """Start them with the first versions; returns when they are ready."""
        for replica in self.replicas:
            replica.remember(desire(self.store, START))
            replica.start()
        self.expected |= {name: listen(self.model, self.store / name, PROMPT, TOKENS) for name in VERSIONS}
        for replica in self.replicas:
            replica.wait_until_ready()

    def stop(self) -> None:
        """Stop them."""
        for replica in self.replicas:
            replica.stop()

    @property
    def store(self) -> Path:
        """The store that the replicas share."""
        return self.root / "store"

    @property
    def urls(self) -> list[str]:
        """Where they answer."""
        return [replica.url for replica in self.replicas]

    async def tell(self, versions: dict[str, str]) -> None:
        """What the operator does: the ConfigMap first, then every pod at once."""
        desired = desire(self.store, versions)
        for replica in self.replicas:
            replica.remember(desired)
        reports = await asyncio.gather(*(asyncio.to_thread(replica.tell, desired) for replica in self.replicas))
        for report in reports:
            assert [(state.name, state.phase) for state in report.adapters] == [(name, "Ready") for name in versions]

    def count(self, metric: str) -> float:
        """The sum of a counter of vLLM over its labels and all replicas."""
        texts = [httpx.get(f"{url}/metrics", headers=bearer(KEY), timeout=30).text for url in self.urls]
        lines = [line for text in texts for line in text.splitlines() if line.startswith(f"{metric}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)
