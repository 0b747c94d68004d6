"""WMT 2014 English to German, Transformer big: Vaswani et al. (2017), table 3, row "big".

    transformer-jax plan experiments/wmt14_en_de_big.py --on h100:8
    transformer-jax train experiments/wmt14_en_de_big.py --workdir runs/wmt14_en_de_big
    transformer-jax average runs/wmt14_en_de_big --output runs/wmt14_en_de_big_average --newest 20
    transformer-jax evaluate runs/wmt14_en_de_big_average --tokenised de

To expect: a model of 214.2 million parameters (table 3 says 213), trained on 4.5 million pairs. The paper took 3.5 days
on 8 P100 and reports 28.4 BLEU on newstest2014, averaged over the last 20 checkpoints, which is the last of the scores
that evaluate prints, with compounds split. How far sacrebleu's is from it: fairseq has 29.3 and 28.6 of one model (its
scaling_nmt). This file has not been run to its end.

The data is that of wmt14_en_de_base.py, also with :hf and :text behind the file.
"""

import dataclasses

from experiments import wmt14_en_de_base
from transformer_jax.config import CheckpointConfig, EvaluationConfig, Experiment


def get_config(place: wmt14_en_de_base.Place = "tfds") -> Experiment:
    """The base experiment with the paper's big model, trained three times as long."""
    base = wmt14_en_de_base.get_config(place)
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, width=1024, num_heads=16, ffn_width=4096, dropout=0.3),
        training=dataclasses.replace(base.training, steps=300_000),
        evaluation=EvaluationConfig(every=6_000),
        checkpoints=CheckpointConfig(every=600, newest=20),  # 10 minutes of the paper's 1 s steps; 20 are averaged
    )
