"""Masks as literal matrices."""

import jax.numpy as jnp
import numpy as np

from transformer_jax import masks


def rows(*lines):
    return np.array([[character == "x" for character in line] for line in lines])


def test_causal():
    np.testing.assert_array_equal(masks.causal_mask(3)[0, 0], rows("x..", "xx.", "xxx"))


def test_packed_segments_attend_within_themselves_and_padding_to_nothing():
    query, key = jnp.array([[1, 1, 2, 0, 0]]), jnp.array([[1, 2, 2, 0]])
    mask = masks.segment_mask(query, key)
    assert mask.shape == (1, 1, 5, 4)
    np.testing.assert_array_equal(mask[0, 0], rows("x...", "x...", ".xx.", "....", "...."))


def test_padding_is_a_sentence_of_one_segment_a_row():
    segments = jnp.array([[1, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(
        masks.segment_mask(segments, segments)[:, 0], [rows("xx.", "xx.", "..."), rows("x..", "...", "...")]
    )


def test_cache_rows_of_different_lengths():
    positions = jnp.array([[0, 1], [2, 3]])
    np.testing.assert_array_equal(
        masks.cache_mask(positions, 5)[:, 0], [rows("x....", "xx..."), rows("xxx..", "xxxx.")]
    )
