"""Whatever sets are put in whatever order, with whatever failing in between: the last one is what vLLM holds."""

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.contracts import DesiredAdapter, DesiredAdapters
from codetune_server.copying import AdapterCopies
from codetune_server.keeping import AdapterKeeper
from codetune_server.routes import VllmRoutes
from codetune_server.verifying import AdapterVerifier
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from unit.server.conftest import FakeVllm

NAMES = ["one", "two", "three"]
FOLDERS = ["v0", "v1", "v2", "refused", "missing"]
SETS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(FOLDERS), max_size=3)
STEPS = st.lists(st.tuples(SETS, st.sampled_from(["now", "soon", "settled"]), st.booleans()), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest) -> Any:
    """A store with three versions and a folder that vLLM refuses; name → its adapter's digest."""
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "store"
        digests = {
            name: conftest.write_adapter(folder / name, content=index)  # type: ignore[union-attr]
            for index, name in enumerate(["v0", "v1", "v2", "refused"])
        }
        yield conftest, folder, digests


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_the_last_set_is_what_vllm_holds(store: Any, steps: list[tuple[dict[str, str], str, bool]]) -> None:
    asyncio.run(follow(store, steps))


async def follow(store: Any, steps: list[tuple[dict[str, str], str, bool]]) -> None:
    conftest, folder, digests = store
    vllm: FakeVllm = conftest.FakeVllm(refused={digests["refused"][7:19]: "load-wrong-shape"})
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    keeper = AdapterKeeper(VllmRoutes(vllm, {}), AdapterVerifier(folder, AdapterCopies(scratch), "", 16))
    task = asyncio.create_task(keeper.run())
    for wanted, pace, with_digest in steps:
        adapters = [
            DesiredAdapter(name=name, path=path, digest=digests.get(path) if with_digest else None)
            for name, path in wanted.items()
        ]
        generation = keeper.want(DesiredAdapters(adapters=adapters))
        if pace == "soon":
            await asyncio.sleep(0.002)
        elif pace == "settled":
            await keeper.wait_settled(generation, 10)
    await keeper.wait_settled(generation, 10)
    report = keeper.report()
    needed = {Path(place).name for place in vllm.loaded.values()} | {
        str(adapter.digest)[7:] for adapter in adapters if adapter.digest
    }
    await until(lambda: not keeper.versions.unused() and {path.name for path in scratch.iterdir()} <= needed)
    task.cancel()
    await asyncio.wait([task])
    assert {Path(place).name for place in vllm.loaded.values()} <= {path.name for path in scratch.iterdir()}

    assert report.ready
    failed = {state.name for state in report.adapters if state.phase == "Failed"}
    assert failed == {name for name, path in wanted.items() if path in ("refused", "missing")}
    fine = {name: digests[path] for name, path in wanted.items() if name not in failed}
    serving = {state.name: state.digest for state in report.adapters if state.phase == "Ready"}
    assert serving == fine
    # A refused replacement leaves an older version of the same name; nothing else may be left.
    kept = {model for model in vllm.loaded if model.partition("@")[0] in failed}
    assert set(vllm.loaded) - kept == {f"{name}@{digest[7:19]}" for name, digest in fine.items()}
    assert len({model.partition("@")[0] for model in kept}) == len(kept)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
