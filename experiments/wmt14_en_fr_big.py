"""WMT 2014 English to French, Transformer big: Vaswani et al. (2017), table 2, last row.

    transformer-jax plan experiments/wmt14_en_fr_big.py --on h100:8
    transformer-jax train experiments/wmt14_en_fr_big.py --workdir runs/wmt14_en_fr_big
    transformer-jax average runs/wmt14_en_fr_big --output runs/wmt14_en_fr_big_average --newest 20
    transformer-jax evaluate runs/wmt14_en_fr_big_average --tokenised fr

To expect: a model of 209.1 million parameters, the English-German big one with a smaller vocabulary and less dropout,
trained on 36 million pairs. The paper took 3.5 days on 8 P100 and reports 41.8 BLEU on newstest2014, averaged over the
last 20 checkpoints, and does not say on which tokens; evaluate prints all three scores. This file has not been run to
its end.

The data is that of wmt14_en_de_base.py with French for German, also with :hf and :text behind the file.
"""

import dataclasses

from experiments import wmt14_en_de_base, wmt14_en_de_big
from transformer_jax.config import Experiment


def get_config(place: wmt14_en_de_base.Place = "tfds") -> Experiment:
    """The big experiment on the French pairs, with the paper's 32,000 pieces and dropout of 0.1."""
    big = wmt14_en_de_big.get_config(place)
    return dataclasses.replace(
        big,
        data=wmt14_en_de_base.training_pairs("fr", place),
        held_out=wmt14_en_de_base.newstest("fr"),
        model=dataclasses.replace(big.model, vocab_size=32_000, dropout=0.1),
    )
