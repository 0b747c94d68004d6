"""Texts to the arrays that are kept of them; imports no jax, so that a process for nothing else starts quickly."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from transformer_jax.data.packing import Ragged, offsets_of
from transformer_jax.data.tokenizer import Tokenizer

_CHUNK = 10_000  # texts tokenised between two reports


def encode(tokenizer: Tokenizer, texts: Sequence[str], tell: Callable[[int], object] = lambda count: None) -> Ragged:
    """The ids of texts with what stands around each; `tell` is told how many more are done."""
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    for start in range(0, len(texts), _CHUNK):
        chunk = list(map(tokenizer.framed, tokenizer.encode(texts[start : start + _CHUNK])))
        lengths.append(np.fromiter(map(len, chunk), np.int64, len(chunk)))
        values.append(np.fromiter(itertools.chain.from_iterable(chunk), np.int32))
        tell(len(chunk))
    return Ragged(np.concatenate(values), offsets_of(np.concatenate(lengths)))
