"""Numbers that look random and are pure functions of what they depend on."""

import numpy as np
from jaxtyping import Float, Int, UInt64

# What is drawn, as the fourth number of a seed, so that nothing shares its numbers with something else; the plan of
# rows has two numbers, which are taken as if two zeros stood behind them.
ORDER, PIECES, TASK = 1, 2, 3

ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: multiples of it lie far apart


def scrambled(values: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """A bijection of 64 bits that flips about half of them for any change (splitmix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def key_of(*numbers: int) -> np.uint64:
    """A key that depends on all of these numbers, none below 0."""
    return np.uint64(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def keyed(
    keys: UInt64[np.ndarray, "*shape"] | np.uint64, places: Int[np.ndarray, "*shape"]
) -> UInt64[np.ndarray, "*shape"]:
    """A key for each place of a key's sequence."""
    return scrambled(keys + (places.astype(np.uint64) + np.uint64(1)) * ODD)


def uniform(keys: UInt64[np.ndarray, " n"], places: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Numbers in [0, 1), one for each place of a key's sequence."""
    return (keyed(keys, places) >> np.uint64(11)) * 2.0**-53
