"""WMT 2014 English to French, Transformer big: Vaswani et al. (2017), table 2, last row.

    transformer-jax train experiments/wmt14_en_fr_big.py --workdir runs/wmt14_en_fr_big

To expect: the sizes of the English-German big model with a smaller vocabulary and less dropout, trained on 36 million
pairs. The paper took 3.5 days on 8 P100 and reports 41.8 BLEU on newstest2014, averaged over the last 20 checkpoints;
this file has not been run to its end.
"""

import dataclasses

from experiments import wmt14_en_de_big
from transformer_jax.config import Experiment, TensorflowDataset


def get_config() -> Experiment:
    """The big experiment on the French pairs, with the paper's 32,000 pieces and dropout of 0.1."""
    big = wmt14_en_de_big.get_config()
    return dataclasses.replace(
        big,
        data=TensorflowDataset(name="wmt14_translate/fr-en", source="en", target="fr"),
        model=dataclasses.replace(big.model, vocab_size=32_000, dropout=0.1),
    )
