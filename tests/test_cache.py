"""The cache of decoding: what is written, exchanged and read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIG, compiled, parameters

from transformer_jax.attention import Cache, Held, KeyValue, LayerCache, Memory, attention_weights, mix_values
from transformer_jax.attention.kept import kept_attention
from transformer_jax.inference import decoding_parameters


def assert_same(found, expected):
    """The same numbers, which numpy does not compare in bfloat16 where they are NaN."""
    np.testing.assert_array_equal(*(np.asarray(x, np.float32) for x in (found, expected)))


class TestCache:
    def exchanging(self, beams=3, capacity=5):
        """Two sentences of so many beams; what row r wrote at place s is 10 r + s, as a value its negative."""
        past = 10.0 * jnp.arange(2.0 * beams)[:, None] + jnp.arange(capacity)[None]
        past = past.reshape(2 * beams, 1, capacity, 1)
        holders = jnp.zeros((2, beams, capacity), jnp.int32)
        return Cache((LayerCache(KeyValue(past, -past), None),), jnp.zeros(2 * beams, jnp.int32), holders, None)

    def held(self, cache):
        key, value = Held(cache.layers[0].past, cache.holders, jnp.array(5)).entries()
        np.testing.assert_array_equal(value, -key)
        return key[:, :, 0, 0]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_entries_are_written_behind_the_length_of_each_row(self, dtype):
        empty = KeyValue(*(jnp.zeros((2, 1, 5, 1), dtype) for _ in range(2)))
        new = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 1, 2, 1)
        written = empty.write(KeyValue(new, 10 * new), jnp.array([0, 3]))
        assert written.key.dtype == written.value.dtype == dtype
        np.testing.assert_array_equal(written.key[:, 0, :, 0], [[1, 2, 0, 0, 0], [0, 0, 0, 3, 4]])
        np.testing.assert_array_equal(written.value, 10 * written.key)

    def test_a_row_goes_on_with_the_hypothesis_of_another_and_nothing_is_copied(self):
        """Two entries by the rows themselves, an exchange, one entry, another exchange."""
        before = self.exchanging().own()
        cache = replace(before, lengths=jnp.full(6, 2)).reorder(jnp.array([2, 2, 0, 3, 5, 4])).own()
        cache = replace(cache, lengths=jnp.full(6, 3)).reorder(jnp.array([1, 0, 1, 4, 4, 4]))
        expected = [[20, 21, 12], [20, 21, 2], [20, 21, 12], [50, 51, 42], [50, 51, 42], [50, 51, 42]]
        np.testing.assert_array_equal(self.held(cache)[:, :3], expected)
        assert cache.layers[0] is before.layers[0]

    def test_a_cache_of_one_beam_exchanges_nothing(self):
        alone = self.exchanging(beams=1)
        key, value = Held(alone.layers[0].past, alone.holders, jnp.array(2)).entries()
        np.testing.assert_array_equal(key[:, :, 0, 0], [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]])
        np.testing.assert_array_equal(value, -key)
        with pytest.raises(ValueError, match="beams=1"):
            alone.reorder(jnp.array([0, 1]))

    def test_rows_are_a_multiple_of_the_beams(self):
        with pytest.raises(ValueError, match="7 rows cannot be exchanged among 2"):
            compiled(CONFIG, "start_cache", rows=7, beams=2, capacity=3)(
                decoding_parameters(parameters(CONFIG)), None, None
            )

    def test_a_memory_gives_back_its_keys_and_values(self):
        key, value = (jax.random.normal(jax.random.key(seed), (2, 7, 3, 5)) for seed in range(2))
        for kind in (Memory, KeyValue):
            for found, given in zip(kind.of(key, value).entries(), (key, value), strict=True):
                np.testing.assert_array_equal(found, given)


class TestHeld:
    BEAMS, ROOM = 3, 13

    def held(self, longest, dtype="float32", key=None):
        """Of five sentences of three beams, thirteen entries of two heads of seven."""
        shape = (5 * self.BEAMS, 2, self.ROOM, 7)
        draws = jax.random.split(jax.random.key(0), 3)
        key = jax.random.normal(draws[0], shape, dtype) if key is None else key
        value = jax.random.normal(draws[1], shape, dtype)
        holders = jax.random.randint(draws[2], (5, self.BEAMS, self.ROOM), 0, self.BEAMS)
        return Held(KeyValue(key, value), holders, jnp.asarray(longest))

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_block_is_what_is_found_whole(self, dtype):
        """Also where a row that is not finite lies beside, and where fewer are left than are asked for."""
        held = self.held(13, dtype)
        held = replace(held, past=jax.tree.map(lambda x: x.at[1].set(jnp.nan), held.past))
        rows, places = np.arange(15)[:, None] // self.BEAMS * self.BEAMS, np.arange(self.ROOM)[None]
        rows = rows + np.asarray(held.holders).reshape(15, self.ROOM)
        for found, x in zip(held.entries(), jax.tree.leaves(held.past), strict=True):
            assert_same(found, np.asarray(x)[rows, :, places])
        for start, first in ((0, 0), (4, 4), (12, 9)):
            for found, whole in zip(held.block(jnp.array(start), 4), held.entries(), strict=True):
                assert found.dtype == dtype
                assert_same(found, whole[:, first : first + 4])

    def attended(self, held, positions=2, length=None, bias=None):
        """By queries of so many positions at the end of hypotheses of a length, all of the longest if None."""
        length = held.longest if length is None else length
        query = jax.random.normal(jax.random.key(1), (15, positions, 4, 7), held.past.key.dtype)
        mask = jnp.broadcast_to(jnp.arange(self.ROOM) < length, (15, 1, positions, self.ROOM))
        return query, mask, bias, kept_attention(query, held, mask, bias)

    @pytest.mark.parametrize("longest", [1, 4, 5, 12, 13])
    def test_attention_in_blocks_is_attention_over_all(self, longest):
        bias = jax.random.normal(jax.random.key(2), (1, 4, 1, self.ROOM))
        query, mask, bias, (mixed, weights) = self.attended(held := self.held(longest), bias=bias)
        key, value = held.entries()
        np.testing.assert_allclose(weights, expected := attention_weights(query, key, mask, bias), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(mixed, mix_values(expected, value), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_no_bit_depends_on_how_much_more_is_read(self, dtype):
        """A sentence beside longer ones gets what it gets alone; beyond the room there are done rows only."""
        for length in (3, 8):
            *_, (mixed, weights) = self.attended(self.held(length, dtype), length=length)
            for longest in (length + 1, 9, 13, 17):
                *_, more = self.attended(self.held(longest, dtype), length=length)
                np.testing.assert_array_equal(more[0], mixed)
                np.testing.assert_array_equal(more[1], weights)

    def test_nothing_behind_the_longest_is_read(self):
        """Blocks are of four: NaN at the ninth place on is not met by hypotheses of eight."""
        held = self.held(8)
        *_, (mixed, _) = self.attended(
            replace(held, past=jax.tree.map(lambda x: x.at[:, :, 8:].set(jnp.nan), held.past))
        )
        np.testing.assert_array_equal(mixed, self.attended(held)[-1][0])
