"""A model of masked words: an encoder alone, as BERT, on the English side of Multi30k or plain text of your own.

    transformer-jax train experiments/bert_multi30k.py --workdir runs/bert_multi30k

To expect: on test_2016_flickr 46.8% of the masked pieces right, where whole words are masked, and a loss of 2.930 nats,
after about an hour on 2 CPU cores beside much other work.

Half of BERT's objective, the half that lasted (Liu et al., 2019): no pairs of sentences. Text of your own: see
gpt_multi30k.py. A classifier on top of such an encoder: parity_from_bert.py.
"""

import dataclasses

from experiments import gpt_multi30k
from transformer_jax.config import Experiment, MaskedLanguageModel, TokenizerConfig


def get_config() -> Experiment:
    """An encoder of the sizes of the decoder in gpt_multi30k.py, and twice its batch: of a row 15% is predicted."""
    gpt = gpt_multi30k.get_config()
    return dataclasses.replace(
        gpt,
        objective=MaskedLanguageModel(whole_words=True),
        tokenizer=TokenizerConfig(masks=1),
        batch=dataclasses.replace(gpt.batch, rows=32, target_length=24),  # predicted places of a row at most
        model=dataclasses.replace(
            gpt.model, encoder_layers=4, decoder_layers=0, output_head=True, output_bias=True, dropout=0.1
        ),
    )
