"""Adapters that were trained elsewhere: what plain PEFT writes is served, from the store and from files.

Nothing of Codetune touches these adapters before the pod does. What vLLM itself makes of them is not tested here.
"""

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from codetune_api.artifacts import ADAPTER_FILES
from codetune_api.contracts import DesiredAdapter
from codetune_api.digests import FileEntry, digest_files
from codetune_server.copying import AdapterCopies
from codetune_server.refusing import Refused
from codetune_server.settings import ServerSettings
from codetune_server.verifying import AdapterVerifier
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from unit.server.conftest import Pod


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `save_pretrained` leaves it, for a base model that was loaded by its hub name."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    base: Any = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4))
    base.name_or_path = "org/base"
    options = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    folder = tmp_path_factory.mktemp("elsewhere") / "adapter"
    # Without a look at the hub, where it would see whether the base model's vocabulary has grown.
    get_peft_model(base, options).save_pretrained(str(folder), save_embedding_layers=False)
    assert {*ADAPTER_FILES, "README.md"} == {path.name for path in folder.iterdir()}
    return folder


def digest_of(folder: Path) -> str:
    contents = {name: (folder / name).read_bytes() for name in ADAPTER_FILES}
    return digest_files(
        {name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for name, data in contents.items()}
    )


def put(adapter: Path, root: Path) -> None:
    root.mkdir(exist_ok=True)
    shutil.copytree(adapter, root / "brought" / "mine")


@pytest.mark.parametrize("root", [pytest.param(None, id="store"), pytest.param("Files", id="files")])
async def test_it_is_served_as_it_is(root: Any, adapter: Path, pod: "Pod") -> None:
    assert pod.settings.files
    put(adapter, pod.settings.files if root else pod.store)
    report = await pod.put(DesiredAdapter(name="mine", path="brought/mine", root=root))
    (told,) = report.adapters
    assert (told.phase, told.message, told.digest) == ("Ready", "", digest_of(adapter))
    assert report.models[-1] == "mine"
    assert (await pod.complete("mine")).status_code == 200


async def test_what_vllm_gets_is_the_adapter_to_the_letter_and_no_more(adapter: Path, pod: "Pod") -> None:
    put(adapter, pod.store)
    await pod.put(DesiredAdapter(name="mine", path="brought/mine"))
    (copy,) = pod.settings.cache.iterdir()
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        name: (adapter / name).read_bytes() for name in ADAPTER_FILES
    }


async def test_it_can_be_pinned_to_its_digest(adapter: Path, pod: "Pod") -> None:
    put(adapter, pod.store)
    good = DesiredAdapter(name="mine", path="brought/mine", digest=digest_of(adapter))
    assert (await pod.put(good)).adapters[0].phase == "Ready"
    wrong = DesiredAdapter(name="mine", path="brought/mine", digest="sha256:" + "0" * 64)
    (told,) = (await pod.put(wrong)).adapters
    assert (told.phase, told.reason) == ("Failed", "DigestMismatch")
    assert told.digest == digest_of(adapter)  # the version that is served goes on


@pytest.mark.parametrize(
    ("reason", "word", "path"),
    [
        pytest.param("AdapterNotFound", "can't be read", "brought/other", id="not there"),
        pytest.param("AdapterNotFound", "outside", "../store/brought/mine", id="out of the root"),
    ],
)
async def test_a_file_that_can_not_be_served_says_why(
    reason: str, word: str, path: str, adapter: Path, pod: "Pod"
) -> None:
    assert pod.settings.files
    put(adapter, pod.store)
    put(adapter, pod.settings.files)
    (told,) = (await pod.put(DesiredAdapter(name="mine", path=path, root="Files"))).adapters
    assert (told.phase, told.reason) == ("Failed", reason)
    assert word in told.message


def test_files_mean_nothing_on_a_real_cluster(settings: ServerSettings) -> None:
    verifier = AdapterVerifier(settings.store, AdapterCopies(settings.cache), settings.base_model, 16)
    with pytest.raises(Refused) as refusal:
        verifier.verify(DesiredAdapter(name="mine", path="brought/mine", root="Files"))
    assert refusal.value.reason == "AdapterNotFound"
    assert "local cluster" in refusal.value.message


async def test_an_adapter_in_a_pickle_is_refused(adapter: Path, pod: "Pod") -> None:
    put(adapter, pod.store)
    folder = pod.store / "brought" / "mine"
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    (told,) = (await pod.put(DesiredAdapter(name="mine", path="brought/mine"))).adapters
    assert (told.phase, told.reason) == ("Failed", "AdapterNotFound")
    assert "adapter_model.safetensors" in told.message
