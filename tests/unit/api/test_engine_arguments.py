"""Arguments of vLLM that a spec may not give: by any spelling, with what to write instead."""

import pytest
from codetune_api.engine import OWNED_ARGUMENTS, find_owned_argument


@pytest.mark.parametrize(
    ("cure", "arguments"),
    [
        pytest.param("engine.maxModelLen", ["--max-model-len", "10"], id="two words"),
        pytest.param("engine.maxModelLen", ["--seed", "1", "--max-model-len=10"], id="one word"),
        pytest.param("engine.maxModelLen", ["--max_model_len", "10"], id="underscores"),
        pytest.param("engine.maxModelLen", ["--max-model", "10"], id="shortened"),
        pytest.param("resources.gpus", ["-tp", "2"], id="one letter or two"),
        pytest.param("resources.gpus", ["-tp=2"], id="short with ="),
        pytest.param("engine.quantization", ["-q", "awq"], id="short"),
        pytest.param("apiKeysSecretRef", ["--api-key", "x"], id="a secret"),
        pytest.param("follows from the adapters", ["--max-lora-rank", "8"], id="rank"),
    ],
)
def test_an_argument_with_a_field_of_its_own_is_found(cure: str, arguments: list[str]) -> None:
    found = find_owned_argument(arguments)
    assert found is not None
    assert cure in found[1]


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="none"),
        pytest.param(["--seed", "1", "--enable-prefix-caching", "--max-num-seqs=8"], id="vLLM's others"),
        pytest.param(["--chat-template", "model"], id="a value that is a name"),
        pytest.param(["--limit-mm-per-prompt", '{"image": 1}'], id="JSON"),
        pytest.param(["--hf-config-path", "x", "-O3"], id="another short one"),
    ],
)
def test_other_arguments_pass(arguments: list[str]) -> None:
    assert find_owned_argument(arguments) is None


def test_every_cure_is_a_sentence_about_what_to_do() -> None:
    assert len(OWNED_ARGUMENTS) > 20
    assert all(cure.startswith(("set ", "remove it: ", "put ", "write ")) for cure in OWNED_ARGUMENTS.values())
