import numpy as np
import pytest

from transformer_jax.data.packing import Ragged, example_ids, most_segments, offsets_of, pack, plan, shift_right


def ragged(*sequences: list[int]) -> Ragged:
    values = np.array([value for sequence in sequences for value in sequence], np.int64)
    return Ragged(values, offsets_of(np.array([len(sequence) for sequence in sequences], np.int64)))


def lengths_like_text(count: int) -> np.ndarray:
    random = np.random.default_rng(7)
    source = np.exp(random.normal(np.log(20), 0.5, count))
    target = source * np.exp(random.normal(0, 0.15, count))
    return np.clip(np.stack([source, target], axis=1), 2, 251).astype(np.int64)


def test_of_what_is_cut_the_beginning_and_so_many_at_the_end_stay():
    texts = Ragged.of([np.arange(own) for own in (7, 3, 0, 4)])
    assert [own.tolist() for own in texts.cut(4, 1)] == [[0, 1, 2, 6], [0, 1, 2], [], [0, 1, 2, 3]]
    assert [own.tolist() for own in texts.cut(3, 2)] == [[0, 5, 6], [0, 1, 2], [], [0, 2, 3]]
    assert [own.tolist() for own in texts.cut(3, 0)] == [[0, 1, 2], [0, 1, 2], [], [0, 1, 2]]


def test_ragged_takes_sequences_in_the_order_asked():
    taken = ragged([2, 3], [], [5, 7, 11]).take(np.array([2, 1, 0, 2]))
    assert [sequence.tolist() for sequence in taken] == [[5, 7, 11], [], [2, 3], [5, 7, 11]]


@pytest.mark.parametrize("count", [1, 7, 997, 70_001])  # the last needs two windows
def test_every_pair_is_in_exactly_one_row_and_every_row_fits(count: int):
    lengths, limits = lengths_like_text(count), (251, 257)
    rows = plan(lengths, limits, seed=3, epoch=5)
    assert sorted(rows.values.tolist()) == list(range(count))
    used = np.add.reduceat(lengths[rows.values], rows.offsets[:-1])
    assert (used <= limits).all()
    assert (rows.lengths > 0).all()


def test_first_fit_on_a_case_done_by_hand():
    # Three pairs fill a row of 7 exactly, whatever their order; a fourth fits on the source side only.
    lengths = np.array([[2, 2], [2, 2], [3, 3], [1, 7]])
    rows = plan(lengths, (8, 7), seed=0, epoch=0)
    assert sorted(sorted(row.tolist()) for row in rows) == [[0, 1, 2], [3]]


def test_plan_is_pure_and_each_epoch_and_seed_has_its_own_order():
    lengths, limits = lengths_like_text(997), (251, 251)
    first, again = (plan(lengths, limits, seed=3, epoch=5) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.offsets, again.offsets)
    for seed, epoch in ((3, 6), (4, 5), (5, 3)):
        assert plan(lengths, limits, seed, epoch).values.tolist() != first.values.tolist()


def test_rows_are_full_and_evenly_so():
    lengths = lengths_like_text(50_000)
    rows = plan(lengths, (251, 251), seed=0, epoch=0)
    assert lengths.sum(axis=0).max() / (len(rows) * 251) > 0.94
    fill = np.add.reduceat(lengths[rows.values], rows.offsets[:-1]).max(axis=1)
    correlation = np.corrcoef(fill, np.arange(len(rows)))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(rows))  # four standard deviations of unrelated rows


def test_most_segments_is_what_the_shortest_pairs_allow():
    lengths = np.array([[2, 5], [3, 5], [3, 5], [11, 2]])
    assert most_segments(lengths, (8, 19)) == 3  # sources: 2 + 3 + 3
    assert most_segments(lengths, (99, 11)) == 2  # targets: 2 + 5
    assert most_segments(lengths, (99, 99)) == 4


def test_pack_lays_sentences_end_to_end():
    sentences = ragged([11, 12, 1], [13, 1], [14, 15, 16, 1], [17, 1])
    packed = pack(ragged([2, 1], [], [3, 0]), sentences, length=7)
    assert packed.tokens.tolist() == [[14, 15, 16, 1, 13, 1, 0], [0, 0, 0, 0, 0, 0, 0], [17, 1, 11, 12, 1, 0, 0]]
    assert packed.segment_ids.tolist() == [[1, 1, 1, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0, 0], [1, 1, 2, 2, 2, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 2, 0, 0]]
    assert {array.dtype for array in packed} == {np.dtype(np.int32)}


def test_shift_right_starts_each_segment_with_padding():
    targets = np.array([[14, 15, 1, 13, 1, 0, 0], [17, 18, 19, 20, 21, 22, 1]], np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6]], np.int32)
    assert shift_right(targets, positions).tolist() == [[0, 14, 15, 0, 13, 0, 0], [0, 17, 18, 19, 20, 21, 22]]


def test_example_ids_name_the_pair_of_each_segment():
    assert example_ids(ragged([5, 3], [], [7]), segments=3).tolist() == [[5, 3, -1], [-1, -1, -1], [7, -1, -1]]
