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
    def held(self, longest, dtype="float32", beams=3, room=13):
        """Of five sentences, entries of two heads of seven."""
        draws = jax.random.split(jax.random.key(0), 3)
        key, value = (jax.random.normal(draw, (5 * beams, 2, room, 7), dtype) for draw in draws[:2])
        return Held(KeyValue(key, value), jax.random.randint(draws[2], (5, beams, room), 0, beams), jnp.array(longest))

    def attended(self, held, lengths, positions=2, bias=None):
        """Query, mask, bias, and what comes of them, by queries at the end of hypotheses of such lengths."""
        rows, _, room, _ = held.past.key.shape
        query = jax.random.normal(jax.random.key(1), (rows, positions, 4, 7), held.past.key.dtype)
        ends = jnp.broadcast_to(jnp.asarray(lengths), rows)[:, None] - positions + jnp.arange(1, positions + 1)[None]
        mask = jnp.arange(room)[None, None, None] < ends[:, None, :, None]
        return query, mask, bias, kept_attention(query, held, mask, bias)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_block_is_what_is_found_whole(self, dtype):
        """Also where a row that is not finite lies beside."""
        held = self.held(13, dtype)
        held = replace(held, past=jax.tree.map(lambda x: x.at[1].set(jnp.nan), held.past))
        rows = np.arange(15)[:, None] // 3 * 3 + np.asarray(held.holders).reshape(15, 13)
        for whole, x in zip(held.entries(), jax.tree.leaves(held.past), strict=True):
            assert_same(whole, np.asarray(x)[rows, :, np.arange(13)[None]])
            for start in (0, 4, 9):
                found = held.block(x, jnp.array(start), 4)
                assert found.dtype == dtype
                assert_same(found, whole[:, start : start + 4])

    def test_without_beams_nobody_is_asked_who_holds_an_entry(self):
        held = self.held(3, beams=1)
        lost = replace(held, holders=held.holders + 5)
        for found, expected in zip(lost.entries(), held.past.entries(), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert "while" not in str(jax.make_jaxpr(lambda held: self.attended(held, 3)[-1])(held))

    @pytest.mark.parametrize("positions", [1, 2])
    @pytest.mark.parametrize(("room", "longest"), [(3, 2), (3, 3), (13, 4), (13, 5), (13, 12), (13, 13)])
    @pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 0.02)])
    def test_attention_in_blocks_is_attention_over_all(self, dtype, tolerance, room, longest, positions):
        held, bias = self.held(longest, dtype, room=room), jax.random.normal(jax.random.key(2), (1, 4, 1, room))
        lengths = longest - jnp.arange(15) % (longest - positions + 1)
        query, mask, bias, (mixed, weights) = self.attended(held, lengths, positions, bias)
        key, value = held.entries()
        np.testing.assert_allclose(weights, expected := attention_weights(query, key, mask, bias), atol=1e-6)
        assert mixed.dtype == dtype
        mixed, expected = (x.astype(jnp.float32) for x in (mixed, mix_values(expected, value)))
        np.testing.assert_allclose(mixed, expected, atol=tolerance)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_no_bit_depends_on_how_much_more_is_read(self, dtype):
        """What a row gets beside longer ones is what it gets beside none; beyond the room there are done rows only."""
        for length in (3, 8, 10, 12):  # the last block of the thirteen places begins at the tenth
            *_, (mixed, weights) = self.attended(self.held(length, dtype), length)
            for longest in (length + 1, 13, 17):
                *_, more = self.attended(self.held(longest, dtype), length)
                np.testing.assert_array_equal(more[0], mixed)
                np.testing.assert_array_equal(more[1], weights)

    def test_nothing_behind_the_longest_is_read(self):
        """Blocks are of four: NaN from the ninth place on is not met by hypotheses of eight."""
        held = self.held(8)
        spoilt = replace(held, past=jax.tree.map(lambda x: x.at[:, :, 8:].set(jnp.nan), held.past))
        np.testing.assert_array_equal(self.attended(spoilt, 8)[-1][0], self.attended(held, 8)[-1][0])

    def test_a_mask_is_needed(self):
        with pytest.raises(ValueError, match="mask is None: it must hide the places behind the longest"):
            kept_attention(jnp.zeros((15, 1, 4, 7)), self.held(3))
