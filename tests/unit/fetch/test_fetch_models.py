"""A base model comes from the hub into the store once, whole and proven, or says why it can't."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_trainer.config import Places
from codetune_trainer.errors import (
    AuthenticationFailed,
    DiskFull,
    GatedModel,
    InvalidParameters,
    ModelNotFound,
    ModelUnavailable,
    NotCausalModel,
    PickledWeights,
    RemoteCodeModel,
    RevisionNotFound,
    TrainerError,
    UnsupportedModel,
)
from codetune_trainer.fetch import choose_files
from codetune_trainer.hub import HubFile
from standin_hub import COMMIT, REPOSITORY, Hub

if TYPE_CHECKING:
    from unit.fetch.conftest import Fetcher

USED = ("config.json", "tokenizer.json", "model.safetensors")


def test_a_model_lands_in_its_commits_folder_and_is_linked(hub: Hub, run: "Fetcher", places: Places) -> None:
    folder = run()
    assert folder == places.store / "models" / "acme" / "coder" / COMMIT
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: hub.files[name] for name in USED}
    assert (places.scratch / "model").resolve() == folder.resolve()
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock", COMMIT]


def test_a_model_that_is_here_is_not_downloaded_again(hub: Hub, run: "Fetcher") -> None:
    run()
    hub.requests.clear()
    hub.downloads.clear()
    run()
    assert hub.requests == [f"/api/models/{REPOSITORY}/revision/main"]
    assert hub.downloads == []


def test_a_commit_that_is_named_and_here_needs_no_hub(hub: Hub, run: "Fetcher") -> None:
    run()
    hub.requests.clear()
    hub.fault = (503, "", "down")
    assert run(revision=COMMIT).name == COMMIT
    assert hub.requests == []


def test_the_token_goes_to_the_hub_and_to_nobody_that_it_redirects_to(
    hub: Hub, run: "Fetcher", monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert (run() / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert set(hub.storage_tokens) == {""}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        pytest.param(GatedModel, (403, "GatedRepo", "restricted"), id="gated"),
        pytest.param(GatedModel, (401, "GatedRepo", "restricted"), id="gated-without-token"),
        pytest.param(ModelNotFound, (404, "RepoNotFound", ""), id="missing"),
        pytest.param(ModelNotFound, (401, "RepoNotFound", ""), id="missing-or-private"),
        pytest.param(RevisionNotFound, (404, "RevisionNotFound", ""), id="revision"),
        pytest.param(AuthenticationFailed, (401, "", "Invalid credentials in Authorization header"), id="wrong-token"),
        pytest.param(ModelUnavailable, (500, "", "oops"), id="server-error"),
    ],
)
def test_what_the_hub_refuses_has_its_own_reason(
    hub: Hub, run: "Fetcher", places: Places, error: type[TrainerError], fault: tuple[int, str, str]
) -> None:
    hub.fault = fault
    with pytest.raises(error) as failure:
        run()
    assert REPOSITORY in failure.value.message
    assert failure.value.hint
    assert not list(places.store.rglob("*.safetensors"))


def test_a_gated_model_is_refused_where_only_its_files_are_closed(hub: Hub, run: "Fetcher") -> None:
    hub.gated = True
    with pytest.raises(GatedModel) as failure:
        run()
    assert "modelSecretRef" in failure.value.hint


def test_a_repository_that_does_not_exist_is_named(hub: Hub, run: "Fetcher") -> None:
    with pytest.raises(ModelNotFound, match="acme/other"):
        run(repository="acme/other")


def test_a_revision_that_does_not_exist_is_named(hub: Hub, run: "Fetcher") -> None:
    with pytest.raises(RevisionNotFound, match="'v9'"):
        run(revision="v9")


def test_a_hub_that_can_not_be_reached_is_named(run: "Fetcher", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:1"):
        run()


@pytest.mark.parametrize(
    ("error", "said", "config"),
    [
        pytest.param(NotCausalModel, "bert model", b'{"model_type": "bert"}', id="an encoder"),
        pytest.param(NotCausalModel, "clip model", b'{"model_type": "clip"}', id="no language model"),
        pytest.param(
            RemoteCodeModel,
            "auto_map",
            b'{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}',
            id="code of its own",
        ),
        pytest.param(UnsupportedModel, "can't be read", b'{"model_type": "never-heard-of"}', id="unknown kind"),
        pytest.param(UnsupportedModel, "can't be read", b"{", id="broken"),
        *(
            pytest.param(
                UnsupportedModel,
                f"quantized already .{method} ",
                b'{"model_type": "llama", "quantization_config": {"quant_method": "%s"}}' % method.encode(),
                id=method,
            )
            for method in ("gptq", "awq", "fp8", "compressed-tensors")
        ),
        pytest.param(
            UnsupportedModel,
            "quantized already",
            b'{"model_type": "gemma3", "text_config": {"quantization_config": {"quant_method": "fp8"}}}',
            id="quantized inside",
        ),
    ],
)
def test_what_can_not_be_trained_is_refused_before_its_weights_are_fetched(
    hub: Hub, run: "Fetcher", error: type[TrainerError], said: str, config: bytes
) -> None:
    hub.files["config.json"] = config
    with pytest.raises(error, match=said) as failure:
        run(training=True)
    assert type(failure.value) is error
    assert failure.value.hint
    assert hub.downloads == ["config.json"]


@pytest.mark.parametrize(("refused", "kind"), [(True, b"qwen2"), (False, b"llama")])
def test_embeddings_that_nobody_could_serve_are_refused_before_weights_are_fetched(
    hub: Hub, run: "Fetcher", refused: bool, kind: bytes
) -> None:
    hub.files["config.json"] = b'{"model_type": "%s"}' % kind
    with pytest.raises(InvalidParameters, match="trainEmbeddings is true, but hf://") if refused else nullcontext():
        run(training=True, train_embeddings=True)
    assert ("model.safetensors" in hub.downloads) is not refused


def test_a_server_judges_by_itself_what_it_can_serve(hub: Hub, run: "Fetcher") -> None:
    hub.files["config.json"] = b'{"model_type": "own"}'
    assert (run() / "model.safetensors").is_file()


def test_a_model_that_is_here_for_serving_is_refused_for_training(hub: Hub, run: "Fetcher") -> None:
    hub.files["config.json"] = b'{"model_type": "bert"}'
    run()
    with pytest.raises(NotCausalModel):
        run(training=True)


def test_a_volume_that_is_too_small_is_told_before_the_first_byte(hub: Hub, run: "Fetcher") -> None:
    hub.sizes["model.safetensors"] = 10**18
    with pytest.raises(DiskFull, match=r"1000000000\.0 GB") as failure:
        run()
    assert "codetune-artifacts" in failure.value.hint
    assert hub.downloads == []


@pytest.mark.parametrize("commit", ["", "../../etc", "HEAD"])
def test_a_commit_that_is_none_is_refused(hub: Hub, run: "Fetcher", commit: str) -> None:
    hub.commit = commit
    with pytest.raises(ModelUnavailable, match="commit"):
        run()


@pytest.mark.parametrize("repository", ["coder", "../../etc/x", "a/b/c", "a/..", "-a/b"])
def test_a_name_that_is_none_is_refused_before_the_hub_is_asked(hub: Hub, run: "Fetcher", repository: str) -> None:
    with pytest.raises(ModelNotFound):
        run(repository=repository)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        pytest.param(["config.json", "model.safetensors"], ["model.safetensors", "config.json"], id="config-first"),
        pytest.param(
            ["config.json", "m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json", "merges.txt"],
            ["config.json", "m-1.safetensors", "m-2.safetensors", "m.safetensors.index.json", "merges.txt", "x.bin"],
            id="shards",
        ),
        pytest.param(
            ["config.json", "model.safetensors"],
            ["config.json", "model.safetensors", "consolidated.safetensors", "original/consolidated.safetensors"],
            id="second-copies-are-left-out",
        ),
        pytest.param(
            ["config.json", "model.safetensors"],
            ["config.json", "model.safetensors", "../evil.json", "a\\b.json", ".hidden.json", "code.py", "x.gguf"],
            id="hostile-names",
        ),
        pytest.param(
            ["config.json", "consolidated.safetensors"], ["config.json", "consolidated.safetensors"], id="only-one-copy"
        ),
    ],
)
def test_the_files_of_a_model_are(chosen: list[str], names: list[str]) -> None:
    files = [HubFile(name, 1, None, None) for name in names]
    assert [file.name for file in choose_files(REPOSITORY, files)] == chosen


@pytest.mark.parametrize(
    ("error", "word", "names"),
    [
        pytest.param(PickledWeights, "pickles", ["config.json", "pytorch_model.bin"], id="pickles-only"),
        pytest.param(UnsupportedModel, "no weights", ["config.json", "model.gguf"], id="another-format"),
        pytest.param(UnsupportedModel, "no weights", [], id="empty"),
        pytest.param(
            UnsupportedModel, "no config.json", ["adapter_model.safetensors", "adapter_config.json"], id="an-adapter"
        ),
    ],
)
def test_a_repository_that_is_no_model_says_why(error: type[TrainerError], word: str, names: list[str]) -> None:
    with pytest.raises(error, match=word) as failure:
        choose_files(REPOSITORY, [HubFile(name, 1, None, None) for name in names])
    assert type(failure.value) is error
    assert failure.value.hint


def test_a_link_of_an_earlier_container_is_replaced(hub: Hub, run: "Fetcher", places: Places) -> None:
    (places.scratch / "model").symlink_to(Path("/nowhere"))
    run()
    assert (places.scratch / "model" / "config.json").read_bytes() == hub.files["config.json"]
