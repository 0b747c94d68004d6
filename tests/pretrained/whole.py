"""Whole public checkpoints, model and tokenizer, made on the spot: of random weights, as tiny as can be."""

import json
import shutil
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.initialisation import initialise
from transformer_jax.pretrained import FAMILIES, Checkpoint, write_checkpoint
from transformer_jax.pretrained.settings import Settings

TOKENIZERS = Path(__file__).parent / "tokenizers"
FAIRSEQ = {
    "d_model": 6,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 10,
    "decoder_ffn_dim": 10,
    "max_position_embeddings": 89,
}
T5 = {"d_model": 6, "d_kv": 3, "d_ff": 10, "num_layers": 1, "num_heads": 2, "relative_attention_num_buckets": 8}
T5["relative_attention_max_distance"] = 11
GPT2 = {"n_embd": 6, "n_layer": 1, "n_head": 2, "n_inner": 10, "n_positions": 89}
ROBERTA = {
    "hidden_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "max_position_embeddings": 89,
    "type_vocab_size": 1,
}
SIZES = {"t5": T5, "gpt2": GPT2, "roberta": ROBERTA}


def write_whole(name, folder, seed=0):
    """The tokenizer of this name in a folder, with a model of its family and vocabulary."""
    shutil.copytree(TOKENIZERS / name, folder, dirs_exist_ok=True)
    (folder / "expected.json").unlink()
    fields = json.loads((folder / "config.json").read_text())
    fields |= SIZES.get(fields["model_type"], FAIRSEQ)
    family = FAMILIES[fields["model_type"]]
    config = family.config(Settings(fields), False)
    params = random_parameters(config, seed)
    params |= {name: jnp.asarray(value) for name, value in family.constants(config).items()}
    write_checkpoint(folder, Checkpoint(fields["model_type"], config, params, fields))
    return folder


def random_parameters(config, seed=0):
    """Parameters of which none is where it starts, so that one in the wrong place shows; drawn without compiling."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: nn.meta.unbox(initialise(config, jax.random.key(0))))

    def draw(path, leaf):
        noise = 0.4 * generator.standard_normal(leaf.shape)
        return jnp.asarray(noise + (path[-1].key == "scale"), leaf.dtype)

    return jax.tree.map_with_path(draw, shapes)
