"""Tokenizers and translators of the small model, made once."""

import functools

import numpy as np
import pytest
from small import ALPHA, EXTRA, MODEL, parameters

from transformer_jax.config import DecodingConfig, TokenizerConfig
from transformer_jax.data.tokenizer import train_tokenizers
from transformer_jax.translation import Translator


@pytest.fixture(scope="session")
def tokenizers():
    random = np.random.default_rng(0)
    lines = [
        " ".join("".join(random.choice(list("abcde"), random.integers(1, 4))) for _ in range(random.integers(1, 7)))
        for _ in range(53)
    ]
    return train_tokenizers(TokenizerConfig(joint=False), MODEL, lines, [line[::-1].upper() for line in lines])


@pytest.fixture(scope="session")
def translator(tokenizers):
    """Makes translators, each once: they keep what they have compiled."""

    @functools.cache
    def make(batch_size=3, beam=2, **decoding_fields):
        decoding = DecodingConfig(
            beam=beam, length_penalty=ALPHA, extra_length=EXTRA, batch_size=batch_size, **decoding_fields
        )
        return Translator(MODEL, parameters(), tokenizers, decoding)

    return make
