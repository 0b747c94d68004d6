"""The cache of decoding: what is written, exchanged and read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import CONFIG, compiled, parameters

from transformer_jax.attention import Cache, KeyValue, LayerCache, Memory
from transformer_jax.attention import cache as cache_module
from transformer_jax.inference import decoding_parameters


class TestCache:
    def exchanging(self, beams=3, capacity=5):
        """Two sentences of so many beams; what row r wrote at place s is 10 r + s, as a value its negative."""
        past = 10.0 * jnp.arange(2.0 * beams)[:, None] + jnp.arange(capacity)[None]
        past = past.reshape(2 * beams, 1, capacity, 1)
        holders = jnp.zeros((2, beams, capacity), jnp.int32)
        return Cache((LayerCache(KeyValue(past, -past), None),), jnp.zeros(2 * beams, jnp.int32), holders, None)

    def held(self, cache, longest):
        held = cache.layers[0].past.held(cache.holders, jnp.array(longest))
        np.testing.assert_array_equal(held.value, -held.key)
        return held.key[:, 0, :, 0]

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
        np.testing.assert_array_equal(self.held(cache, 3)[:, :3], expected)
        assert cache.layers[0] is before.layers[0]

    def test_what_is_read_does_not_depend_on_how_much_more_is_read(self):
        cache = replace(self.exchanging().own(), lengths=jnp.full(6, 2)).reorder(jnp.array([2, 2, 0, 3, 5, 4]))
        for longest in range(2, 6):
            np.testing.assert_array_equal(self.held(cache, longest)[:, :2], self.held(cache, 5)[:, :2])

    def test_a_cache_of_one_beam_exchanges_nothing(self):
        alone = self.exchanging(beams=1)
        assert alone.layers[0].past.held(alone.holders, jnp.array(2)) is alone.layers[0].past
        with pytest.raises(ValueError, match="beams=1"):
            alone.reorder(jnp.array([0, 1]))

    def test_rows_are_a_multiple_of_the_beams(self):
        with pytest.raises(ValueError, match="7 rows cannot be exchanged among 2"):
            compiled(CONFIG, "start_cache", rows=7, beams=2, capacity=3)(
                decoding_parameters(parameters(CONFIG)), None, None
            )

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("beams", [2, 7, 11])  # few are summed on a CPU, many gathered
    def test_entries_are_found_in_parts_as_they_are_found_whole(self, dtype, beams):
        """And a row that is not finite spoils no other."""
        rows, room = 3 * beams, 13
        key = jax.random.normal(jax.random.key(0), (rows, 2, room, 5), dtype).at[1].set(jnp.nan)
        entries = KeyValue(key, -key)
        holders = jax.random.randint(jax.random.key(1), (3, beams, room), 0, beams)
        sentence, places = np.arange(rows)[:, None] // beams, np.arange(room)[None]
        whole = np.asarray(key, np.float32)[
            beams * sentence + np.asarray(holders).reshape(rows, room), :, places
        ]  # -> [R S G K]
        for longest in (0, 3, 4, 5, 12, 13, 17):  # beyond the room: of rows that nothing asks for any more
            for read in (cache_module._held, cache_module._held_in_parts):
                held = read(entries, holders, jnp.array(longest))
                assert held.key.dtype == dtype
                found, value = (x[:, :, :longest].swapaxes(1, 2).astype(jnp.float32) for x in (held.key, held.value))
                np.testing.assert_array_equal(found, whole[:, :longest])
                np.testing.assert_array_equal(value, -found)

    def test_a_memory_gives_back_its_keys_and_values(self):
        key, value = (jax.random.normal(jax.random.key(seed), (2, 7, 3, 5)) for seed in range(2))
        for kind in (Memory, KeyValue):
            for found, given in zip(kind.of(key, value).entries(), (key, value), strict=True):
                np.testing.assert_array_equal(found, given)
