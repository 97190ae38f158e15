"""Packing: nothing lost, nothing seen across documents. The oracle is transformers' own loss on each document alone."""

from pathlib import Path

import pytest
import torch
from codetune_trainer.train.data.packing import IGNORED, count_pieces, cut_pieces, join, pack
from codetune_trainer.train.model.losses import sum_loss
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

DOCUMENTS = st.lists(st.lists(st.integers(1, 250), min_size=1, max_size=60), min_size=1, max_size=12)


@given(DOCUMENTS)
def test_every_token_is_packed_once_and_in_order(documents: list[list[int]]) -> None:
    packed = pack([piece for found in documents for piece in cut_pieces(found, 16)], 16, padding=0)
    pieces = []
    for row in range(len(packed)):
        for segment in range(int(packed.segments[row].max()) + 1):
            pieces.append(packed.tokens[row][packed.segments[row] == segment].tolist())
    assert sorted(pieces) == sorted(found[at : at + 16] for found in documents for at in range(0, len(found), 16))
    assert (packed.tokens[packed.segments == -1] == 0).all()


@given(DOCUMENTS)
def test_labels_are_the_next_token_of_the_same_piece_and_positions_begin_anew(documents: list[list[int]]) -> None:
    packed = pack([piece for found in documents for piece in cut_pieces(found, 16)], 16, padding=0)
    for tokens, labels, positions, segments in zip(
        packed.tokens, packed.labels, packed.positions, packed.segments, strict=True
    ):
        for at in range(16):
            follows = at + 1 < 16 and segments[at] == segments[at + 1] != -1
            assert labels[at] == (tokens[at + 1] if follows else IGNORED)
            if segments[at] != -1:
                begins = at == 0 or segments[at] != segments[at - 1]
                assert positions[at] == (0 if begins else positions[at - 1] + 1)


def test_best_fit_fills_sequences() -> None:
    packed = pack([[1] * size for size in (9, 3, 7, 13, 5, 11)], 16, padding=0)
    assert (len(packed), int((packed.segments >= 0).sum())) == (3, 48)


def test_a_model_that_begins_texts_with_a_token_has_it_before_every_piece() -> None:
    assert cut_pieces([1, 2, 3, 4, 5], 3, begin=[9]) == [[9, 1, 2], [9, 3, 4], [9, 5]]


@pytest.mark.parametrize("begin", [[], [9]])
@pytest.mark.parametrize("sizes", [[], [0], [1], [6, 7, 8], [12, 1, 23]])
def test_pieces_are_counted_without_cutting(sizes: list[int], begin: list[int]) -> None:
    made = [piece for size in sizes for piece in cut_pieces([1] * size, 7, begin)]
    assert count_pieces(sizes, 7, begin) == len(made)


@pytest.mark.parametrize("shared", [pytest.param(True, id="shared"), pytest.param(False, id="one a sequence")])
def test_the_loss_of_packed_documents_is_that_of_each_alone(tiny_model: Path, shared: bool) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    chance = torch.Generator().manual_seed(3)
    documents = [torch.randint(0, 256, (size,), generator=chance).tolist() for size in (30, 7, 19, 64, 5, 40, 2)]
    packed = pack(documents, 64, padding=257, shared=shared)
    assert packed.is_shared == shared
    alone = torch.zeros(())
    for document in documents:
        tokens = torch.tensor([document])
        alone += model(input_ids=tokens, labels=tokens).loss.detach() * (len(document) - 1)
    together = sum_loss(model, packed).detach()
    assert packed.targets == sum(len(document) - 1 for document in documents)
    assert together.item() == pytest.approx(alone.item(), rel=1e-5)


def test_what_stands_before_a_document_in_its_sequence_changes_nothing(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).model
    hidden = []
    for before in (3, 200):
        packed = pack([[before] * 20, [5, 6, 7, 8]], 24, padding=257)
        out = model(input_ids=packed.tokens, position_ids=packed.positions, attention_mask=packed.mask())
        hidden.append(out.last_hidden_state[0, 20:].detach())
    assert torch.allclose(hidden[0], hidden[1], atol=1e-6)


def test_joined_sequences_follow_each_other() -> None:
    first, second = (pack([[value] * 4], 4, padding=0) for value in (1, 2))
    assert join([first, second]).tokens.tolist() == [[1] * 4, [2] * 4]
