"""Captions, English to German, by a model that has read both languages before: multi30k_en_de.py from t5_multi30k.py.

    transformer-jax train experiments/t5_multi30k.py --workdir runs/t5_multi30k
    transformer-jax train experiments/multi30k_from_t5.py --workdir runs/multi30k_from_t5

To expect: BLEU 32.2 on test_2016_flickr (sacrebleu 13a, mixed case, beam 5) after 55 minutes on 2 CPU cores beside
other work, where multi30k_en_de.py, from nothing, reaches 37.0. Both have read the same 29,000 captions, and what their
holes teach is in the way of translating them. This is how it is done; it pays where there is more text than pairs.
"""

import dataclasses

from experiments import multi30k_en_de
from transformer_jax.config import Experiment, ModelConfig, TokenizerConfig


def get_config() -> Experiment:
    """The same data, schedule and decoding; vocabulary and sizes are those of the run that it starts from."""
    scratch = multi30k_en_de.get_config()
    return dataclasses.replace(
        scratch,
        init_from="runs/t5_multi30k",
        tokenizer=TokenizerConfig(),
        model=ModelConfig(dropout=0.3),
    )
