"""Two replicas of a ModelDeployment on a local cluster: the real operator and vLLM, and clients that never pause.

One story, told in order: swaps through `kubectl apply` with an operator that is killed in the middle of them, adapters
that can't be served, a FineTune that is found by its labels and served while it is trained, and a pod that has to go.
What is said is compared with PEFT's oracle. Left out: the servers without an operator (`test_serving_replicas`).
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))

from deployed import Deployed, make_code, make_deployment, make_finetune, make_project
from following import follow
from load import PROMPT, TOKENS, Load, Says, Timeline
from oracle import listen
from replicas import digest_folder

if TYPE_CHECKING:
    from e2e.conftest import TinyModel

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

Obj = dict[str, Any]
VERSIONS = [f"v{number}" for number in range(1, 7)]
START = dict(zip("abcd", VERSIONS, strict=False))
SELECTOR = {"matchLabels": {"stage": "production"}, "checkpoint": "latest"}


@dataclass
class Story:
    """What is served, and what its adapters say."""

    deployed: Deployed
    expected: dict[str, Says]

    def by_uri(self, name: str, folder: str, **more: str) -> Obj:
        """An adapter of a folder below the file root, pinned to what lies there."""
        place = self.deployed.files / "adapters" / folder
        digest = {"digest": digest_folder(place)} if place.is_dir() else {}
        return {"name": name, "uri": f"file:///adapters/{folder}", **digest, **more}

    def ask_for(self, versions: dict[str, str], *more: Obj) -> None:
        """What a person does."""
        adapters = [self.by_uri(name, version) for name, version in versions.items()]
        self.deployed.apply(make_deployment(*adapters, *more, adapterSelector=SELECTOR))

    def serves(self, versions: dict[str, str]) -> bool:
        """Whether status says that both replicas serve these versions, and they do."""
        wanted = {name: digest_folder(self.deployed.files / "adapters" / version) for name, version in versions.items()}
        told = {name: state.get("digest") for name, state in self.deployed.states().items() if is_served(state)}
        held = [{state.name: state.digest for state in report.adapters} for report in self.deployed.reports()]
        return all(wanted.items() <= found.items() for found in (told, *held))

    def start_load(self, urls: list[str], versions: dict[str, str]) -> Load:
        """Clients that know what each name means."""
        return Load(urls, sorted(versions), self.expected, Timeline.start(versions))


def is_served(state: Obj) -> bool:
    return (state["phase"], state.get("readyReplicas")) == ("Ready", 2)


@pytest.fixture(scope="module")
def story(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    deployed = Deployed.start(tmp_path_factory.mktemp("serving"))
    try:
        adapters = deployed.files / "adapters"
        for seed, version in enumerate(VERSIONS, start=21):
            tiny_model.make_adapter(adapters / version, seed=seed, base_model="file:///tiny")
        started = Story(deployed, {})
        started.ask_for(START)
        model = deployed.files / "tiny"
        started.expected |= {version: listen(model, adapters / version, PROMPT, TOKENS) for version in VERSIONS}
        deployed.wait_for_ready()
        yield started
    finally:
        deployed.stop()


def test_ready_means_that_every_replica_serves_everything(story: Story) -> None:
    assert story.serves(START)
    status = story.deployed.status()
    assert status["models"] == ["base", *START]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)


@pytest.mark.parametrize(
    ("after", "pause"),
    [
        pytest.param({**START, "a": "v5", "b": "v6"}, 0.0, id="when its ConfigMap is written"),
        pytest.param({"a": "v5", "c": "v1", "d": "v4", "e": "v6"}, 0.1, id="when its pods are told"),
    ],
)
def test_an_operator_that_is_killed_in_the_middle_of_a_swap_ends_it_right(
    after: dict[str, str], pause: float, story: Story
) -> None:
    load = story.start_load(story.deployed.urls(), START)
    load.names = sorted(START.keys() | after.keys())

    def swap() -> None:
        story.ask_for(after)
        digests = {digest_folder(story.deployed.files / "adapters" / version) for version in after.values()}
        story.deployed.wait_until(lambda: digests <= mounted_digests(story.deployed), "the ConfigMap is written")
        time.sleep(pause)
        story.deployed.kill_operator()
        story.deployed.restart_operator()
        story.deployed.wait_until(lambda: story.serves(after), "both replicas serve the new set", 240)

    async def swap_under_load() -> None:
        async with load.run(4):
            load.timeline.change(START, after)
            await asyncio.to_thread(swap)
            load.timeline.settle(after)
            await load.see(2 * len(load.names))

    asyncio.run(swap_under_load())
    assert load.tally.faults == []
    assert set(after.items()) <= load.tally.seen
    story.ask_for(START)
    story.deployed.wait_until(lambda: story.serves(START) and not {"e"} & story.deployed.states().keys(), "rolled back")


def mounted_digests(deployed: Deployed) -> set[str]:
    mounted = json.loads(deployed.get("configmap", "coder-adapters")["data"]["adapters.json"])
    return {adapter.get("digest") for adapter in mounted["adapters"]}


def test_what_can_not_be_served_stands_in_status_by_name_and_the_rest_is_served(
    story: Story, tiny_model: "TinyModel"
) -> None:
    adapters = story.deployed.files / "adapters"
    tiny_model.make_adapter(adapters / "foreign", seed=1, base_model="hf://org/another")
    broken = [
        story.by_uri("corrupt", "v1", digest="sha256:" + "0" * 64),
        story.by_uri("foreign", "foreign"),
        story.by_uri("missing", "missing"),
    ]
    story.ask_for(START, *broken)
    expected = {"corrupt": "DigestMismatch", "foreign": "BaseModelMismatch", "missing": "AdapterNotFound"}

    def reasons() -> dict[str, str]:
        return {name: state.get("reason", "") for name, state in story.deployed.states().items() if name in expected}

    story.deployed.wait_until(lambda: reasons() == expected, "each has its reason", 240)
    assert story.serves(START)
    assert story.deployed.status()["phase"] == "Failed"
    story.ask_for(START)
    story.deployed.wait_for_ready(60)


def test_a_run_is_found_by_its_labels_and_served_while_it_goes_on_and_when_it_is_over(story: Story) -> None:
    deployed = story.deployed
    deployed.apply(make_project(make_code(deployed.files / "shop")))
    deployed.wait_until(lambda: deployed.status("project", "shop").get("revision"), "the project is scanned", 120)
    follow(deployed, make_finetune("run", steps=300, every=100, stage="production"))

    def is_last() -> bool:
        state = deployed.states()["run"]
        return is_served(state) and state["checkpoint"] == "step-000300"

    deployed.wait_until(is_last, "the last checkpoint is served", 15)
    deployed.wait_for_ready(15)
    events = [event for event in deployed.get("events")["items"] if event["reason"] == "AdapterReady"]
    assert len({event["message"] for event in events if "'run'" in event["message"]}) >= 2  # it moved


def test_a_pod_that_has_to_go_ends_its_streams_and_fails_nobody(story: Story) -> None:
    deployed = story.deployed
    load = story.start_load([deployed.status()["endpoint"]], START)
    first = deployed.get("pods", "-l", "app.kubernetes.io/component=server")["items"][0]["metadata"]["name"]

    def remove() -> None:
        deployed.laptop.kubectl("delete", "pod", first, "--timeout=90s")

    async def remove_under_load() -> None:
        async with load.run(4):
            await load.see(8)
            await asyncio.to_thread(remove)
            await load.see(8)

    asyncio.run(remove_under_load())
    assert load.tally.faults == []
