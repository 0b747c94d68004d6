"""Odd or even: a classifier of number words, on top of an encoder that has read them; the simplest transfer learning.

    transformer-jax train experiments/bert_numerals.py --workdir runs/bert_numerals
    transformer-jax train experiments/parity_from_bert.py --workdir runs/parity
    echo "forty-two" | transformer-jax classify runs/parity --probabilities

To expect: all of 1,000 held-out numbers right after a minute on 2 CPU cores; with an encoder that stays as it is 78.9%.

Classes of your own: a source whose target side names them, such as TsvFiles, and their names as labels. An
encoder stays as it is with --training.frozen 'encoder/*' 'embedding/*'.
"""

import dataclasses

from experiments import bert_numerals
from transformer_jax.config import (
    Classification,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    Numerals,
    Schedule,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Experiment:
    """A low rate and few steps."""
    return dataclasses.replace(
        bert_numerals.get_config(),
        init_from="runs/bert_numerals",
        data=Numerals(form="parity"),
        objective=Classification(labels=("even", "odd")),
        tokenizer=TokenizerConfig(),
        model=ModelConfig(decoder_layers=0, classes=2, dropout=0.1),
        schedule=Schedule(kind="linear", peak=5e-4, warmup_steps=20),
        training=TrainingConfig(steps=200, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=100, metric="accuracy"),
    )
