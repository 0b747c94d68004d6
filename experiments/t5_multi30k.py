"""An encoder and a decoder that have read before they translate: span corruption, as T5, on both sides of Multi30k.

    transformer-jax train experiments/t5_multi30k.py --workdir runs/t5_multi30k

To expect: on both sides of test_2016_flickr a loss of 1.733 nats a token of the spans, perplexity 5.66, after about 40
minutes on 2 CPU cores beside much other work. What starts from it: multi30k_from_t5.py.
"""

import dataclasses

from experiments import multi30k_en_de
from transformer_jax.config import Experiment, PlainText, SpanCorruption, TokenizerConfig


def get_config() -> Experiment:
    """The model of multi30k_en_de.py on the texts of both languages, none of them aligned."""
    translation = multi30k_en_de.get_config()
    return dataclasses.replace(
        translation,
        data=PlainText(
            dir="data/multi30k",
            train=("train.en.gz", "train.de.gz"),
            validation=("val.en.gz", "val.de.gz"),
            test=("test_2016_flickr.en.gz", "test_2016_flickr.de.gz"),
        ),
        objective=SpanCorruption(),
        tokenizer=TokenizerConfig(masks=5),  # spans of a text at most, with 64 tokens
        batch=dataclasses.replace(translation.batch, rows=32, target_length=32),
        training=dataclasses.replace(translation.training, epochs=6, label_smoothing=0.0),
        evaluation=dataclasses.replace(translation.evaluation, translations=0),
    )
