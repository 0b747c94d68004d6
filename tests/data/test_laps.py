"""Which examples come when."""

from collections import Counter

import numpy as np
import pytest

from transformer_jax.data.corpus import Corpus
from transformer_jax.data.examples import Examples
from transformer_jax.data.laps import Lap, Mixture, WholeEpochs, Windows
from transformer_jax.data.packing import Ragged


class Numbers(Corpus):
    """Example i of epoch e is the target [i, e]; every second number is left out of the names."""

    dropped, drawn, held, segments = {}, True, True, 3

    def __init__(self, size: int) -> None:
        self.total = self._size = size

    def __len__(self) -> int:
        return self._size

    def names(self, chosen: np.ndarray) -> np.ndarray:
        return 2 * chosen

    def draw(self, epoch: int, chosen: np.ndarray) -> Examples:
        return Examples(None, Ragged.of([np.array([index, epoch]) for index in chosen]))


def content(lap: Lap) -> list[tuple[int, int]]:
    assert len(lap.names) == len(lap.examples)
    return [tuple(own.tolist()) for own in lap.examples.target]


def test_the_order_shares_no_numbers_with_the_plan_of_rows():
    """Of a seed and an epoch alone, a plan makes another order."""
    planned = np.random.Generator(np.random.PCG64((3, 0))).permutation(101)
    ordered = np.array(content(Windows(Numbers(101), seed=3, window=101).lap(0)))[:, 0]
    assert sorted(ordered) == sorted(planned)
    assert np.sum(ordered == planned) < 9  # of two orders of any size 1 is expected


def test_windows_go_through_every_epoch_once_in_an_order_of_its_own():
    windows = Windows(Numbers(23), seed=3, window=7)
    assert windows.per_epoch == 4
    laps = [content(windows.lap(index)) for index in range(8)]
    assert [len(lap) for lap in laps] == [7, 7, 7, 2] * 2
    for epoch in range(2):
        seen = [example for lap in laps[4 * epoch : 4 * epoch + 4] for example in lap]
        assert sorted(seen) == [(index, epoch) for index in range(23)]
    assert [index for index, _ in laps[0]] != [index for index, _ in laps[4]]
    assert content(Windows(Numbers(23), seed=3, window=7).lap(5)) == laps[5]  # without those before it
    assert content(Windows(Numbers(23), seed=4, window=7).lap(0)) != laps[0]


def test_names_go_with_their_examples():
    lap = Windows(Numbers(23), seed=3, window=7).lap(2)
    assert lap.names.tolist() == [2 * index for index, _ in content(lap)]


def test_whole_epochs_are_the_same_lap_again():
    whole = WholeEpochs(Numbers(5))
    assert content(whole.lap(0)) == content(whole.lap(3)) == [(index, 0) for index in range(5)]


class TestMixture:
    MIXED = Mixture([Numbers(30), Numbers(10)], [1.0, 3.0], seed=3, window=8)

    def test_each_lap_has_its_share_of_each(self):
        for index in range(7):
            own = [bool(name >= 59) for name in self.MIXED.lap(index).names]  # those of the second, behind 58
            assert Counter(own) == {False: 2, True: 6}

    def test_each_corpus_goes_round_by_itself(self):
        examples = [
            (name, example)
            for index in range(15)
            for name, example in zip(self.MIXED.lap(index).names, content(self.MIXED.lap(index)), strict=True)
        ]
        first = [example for name, example in examples if name < 59]
        second = [example for name, example in examples if name >= 59]
        assert sorted(first) == [(index, 0) for index in range(30)]  # 15 * 2
        assert sorted(second) == [(index, epoch) for index in range(10) for epoch in range(9)]  # 15 * 6

    def test_a_rate_that_leaves_a_lap_without_any_is_made_up_for_later(self):
        mixed = Mixture([Numbers(50), Numbers(50)], [99.0, 1.0], seed=3, window=10)
        counts = [int((mixed.lap(index).names >= 99).sum()) for index in range(20)]
        assert sum(counts) == 2
        assert set(counts) == {0, 1}

    def test_examples_of_other_kinds_stand_side_by_side(self):
        class Sourced(Numbers):
            def draw(self, epoch: int, chosen: np.ndarray) -> Examples:
                target = super().draw(epoch, chosen).target
                return Examples(target, target, Ragged(0.0 * target.values.astype(np.float32), target.offsets))

        lap = Mixture([Numbers(5), Sourced(5)], [1.0, 1.0], seed=0).lap(0)
        assert [len(source) for source in lap.examples.source] == [0] * 5 + [2] * 5
        assert [weights.tolist() for weights in lap.examples.weights] == [[1.0, 1.0]] * 5 + [[0.0, 0.0]] * 5


@pytest.mark.parametrize("window", [1, 23, 100])
def test_any_window_holds_every_example(window: int):
    windows = Windows(Numbers(23), seed=3, window=window)
    seen = [index for lap in range(windows.per_epoch) for index, _ in content(windows.lap(lap))]
    assert sorted(seen) == list(range(23))
