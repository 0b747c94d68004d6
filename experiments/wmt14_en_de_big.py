"""WMT 2014 English to German, Transformer big: Vaswani et al. (2017), table 3, row "big".

    transformer-jax train experiments/wmt14_en_de_big.py --workdir runs/wmt14_en_de_big

To expect: a model of about 213 million parameters, trained on 4.5 million pairs. The paper took 3.5 days on 8 P100 and
reports 28.4 BLEU on newstest2014, averaged over the last 20 checkpoints; this file has not been run to its end.
"""

import dataclasses

from experiments import wmt14_en_de_base
from transformer_jax.config import CheckpointConfig, EvaluationConfig, Experiment


def get_config() -> Experiment:
    """The base experiment with the paper's big model, trained three times as long."""
    base = wmt14_en_de_base.get_config()
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, width=1024, num_heads=16, ffn_width=4096, dropout=0.3),
        training=dataclasses.replace(base.training, steps=300_000),
        evaluation=EvaluationConfig(every=6_000),
        checkpoints=CheckpointConfig(every=600, newest=20),  # 10 minutes of the paper's 1 s steps; 20 are averaged
    )
