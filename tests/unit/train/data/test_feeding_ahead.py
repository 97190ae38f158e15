"""Batches across the ends of epochs, the next of which is prepared in a thread of its own."""

import dataclasses
import itertools
import threading

import pytest
import torch
from codetune_trainer.train.data.encoding import Encoder
from codetune_trainer.train.data.feeding import Corpus, Position, feed
from codetune_trainer.train.data.packing import Packed, join


@pytest.fixture
def corpus(encoder: Encoder) -> Corpus:
    texts = [f"value = {number}\n" * 3 for number in range(5)]
    plain = [[*found, encoder.end] for found in encoder.encode(texts)]
    return Corpus(texts, plain, encoder, length=40, fim=None, fim_rate=0.0, seed=3)


def test_batches_follow_the_epochs_in_their_order(corpus: Corpus) -> None:
    epochs = join([corpus.epoch(number) for number in range(4)])
    taken = join(list(itertools.islice(feed(corpus, Position(), 3, 100), len(epochs) // 3)))
    assert torch.equal(taken.tokens, epochs.tokens[: len(taken)])


def test_from_a_position_on_the_batches_are_the_same(corpus: Corpus) -> None:
    position = Position()
    batches = feed(corpus, position, 3, 100)
    places, found = [], []
    for _ in range(6):
        places.append(dataclasses.replace(position))
        found.append(next(batches))
    for place, batch in zip(places, found, strict=True):
        assert torch.equal(next(feed(corpus, place, 3, 1)).tokens, batch.tokens)


def test_the_next_epoch_is_made_beside_the_training(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    makers: dict[int, str] = {}
    make = Corpus.epoch

    def noting(self: Corpus, number: int) -> Packed:
        makers[number] = threading.current_thread().name
        return make(self, number)

    monkeypatch.setattr(Corpus, "epoch", noting)
    position = Position()
    batches = feed(corpus, position, 1, 1000)
    while position.epoch < 2:
        next(batches)
    assert makers[0] == threading.main_thread().name
    assert makers[1] == makers[2] == "next epoch"


def test_an_epoch_that_can_not_be_made_fails_where_it_is_needed(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Corpus.epoch

    def failing(self: Corpus, number: int) -> Packed:
        if number:
            raise MemoryError("no room")
        return make(self, number)

    monkeypatch.setattr(Corpus, "epoch", failing)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(MemoryError, match="no room"):
        list(feed(corpus, Position(), 1, 100))


def test_no_epoch_is_made_that_no_batch_is_from(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = Corpus.epoch

    def noting(self: Corpus, number: int) -> Packed:
        made.append(number)
        return make(self, number)

    length = len(corpus.epoch(0))
    monkeypatch.setattr(Corpus, "epoch", noting)
    assert len(list(feed(corpus, Position(), 1, length))) == length
    assert made == [0]
    assert len(list(feed(corpus, Position(), 1, length + 1))) == length + 1
    assert made == [0, 0, 1]
