"""Captions, English to German, by a model that has read both languages before: multi30k_en_de.py from t5_multi30k.py.

    transformer-jax train experiments/t5_multi30k.py --workdir runs/t5_multi30k
    transformer-jax train experiments/multi30k_from_t5.py --workdir runs/multi30k_from_t5

To expect: nothing is known yet beside what multi30k_en_de.py reaches; this file has not been run to its end.
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
