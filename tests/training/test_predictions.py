"""Every kind of model has the parameters that its loss asks for, however its embeddings are shared."""

import jax
import numpy as np
import pytest

from transformer_jax.config import ModelConfig
from transformer_jax.data.batch import Batch, Side
from transformer_jax.initialisation import init_parameters
from transformer_jax.models import Transformer
from transformer_jax.training.objectives import batch_loss

SIZES = {"width": 6, "num_heads": 2, "ffn_width": 10, "vocab_size": 13}
PLACES = np.zeros((3, 5), np.int32)
SIDE = Side(PLACES, PLACES, PLACES, PLACES, PLACES.astype(np.float32))


@pytest.mark.parametrize("shared", ["all", "target", "inputs", "none"])
@pytest.mark.parametrize(
    ("encoder", "decoder", "more"),
    [(1, 0, {}), (1, 0, {"output_head": True}), (1, 0, {"classes": 3}), (0, 1, {}), (1, 1, {})],
)
def test_the_loss_of_fresh_parameters_can_be_computed(encoder, decoder, more, shared):
    config = ModelConfig(encoder_layers=encoder, decoder_layers=decoder, share_embeddings=shared, **SIZES, **more)
    batch = Batch(SIDE if encoder else None, SIDE, PLACES)

    def loss():
        return batch_loss(Transformer(config), init_parameters(config, jax.random.key(0)), batch).loss

    assert jax.eval_shape(loss).shape == ()


def test_a_batch_of_another_kind_is_refused():
    config = ModelConfig(encoder_layers=0, decoder_layers=1, **SIZES)
    with pytest.raises(ValueError, match="a source where its model has an encoder, and only there"):
        batch_loss(Transformer(config), {}, Batch(SIDE, SIDE, PLACES))
