"""Makes a golden run, `make_golden.py ARCHIVE.tar.gz`: of the present format, to be opened by every later version.

A run of three steps on eight devices; of it stay what opens it, one checkpoint, and expected.json: digests of the
parameters' bytes, and the logits that they give. Never made again once it is committed.
"""

import hashlib
import io
import json
import os
import random
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np
import sentencepiece

from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    Experiment,
    LoggingConfig,
    MeshConfig,
    ModelConfig,
    Schedule,
    TextFiles,
    TrainingConfig,
)
from transformer_jax.data.tokenizer import EOS_ID, PAD_ID, UNK_ID, SentencePiece, Tokenizers
from transformer_jax.models import Transformer
from transformer_jax.runs import RunFolder
from transformer_jax.sharding import data_mesh
from transformer_jax.training import data as datasets
from transformer_jax.training import loop
from transformer_jax.translation import read_parameters

EXPERIMENT = Experiment(
    data=TextFiles(train=("train.a", "train.b")),
    batch=BatchConfig(rows=8, source_length=17, target_length=19),
    model=ModelConfig(encoder_layers=1, decoder_layers=1, width=8, num_heads=4, ffn_width=16, vocab_size=32),
    schedule=Schedule(kind="constant", peak=0.01, warmup_steps=0),
    training=TrainingConfig(steps=3),
    checkpoints=CheckpointConfig(every=3),
    logging=LoggingConfig(tensorboard=False),
    mesh=MeshConfig(data=2, fsdp=2, tensor=2),
)

SOURCE = np.array([[5, 9, 17, 30, 1], [8, 3, 1, 0, 0]], np.int32)
TARGET = np.array([[0, 4, 31, 12, 7, 22, 6], [0, 11, 3, 28, 19, 5, 14]], np.int32)


def logits_of(model, params):
    """Float32 [2 7 V], of the sentences above."""
    apply = jax.jit(lambda params, *tokens: Transformer(model).apply({"params": params}, *tokens)[0])
    return np.asarray(apply(params, SOURCE, TARGET))


def digests_of(params):
    """Name of a leaf -> dtype, shape, and SHA-256 of its bytes."""
    leaves = {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    return {
        name: [str(leaf.dtype), list(leaf.shape), hashlib.sha256(leaf.tobytes()).hexdigest()]
        for name, leaf in leaves.items()
    }


def small_tokenizers(config, model, sources, targets):
    """Tokenizers without the table of Unicode normalisation, which would be nine tenths of a golden run."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sources, *targets]),
        model_writer=written,
        model_type=config.algorithm,
        vocab_size=model.vocab_size,
        normalization_rule_name="identity",
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        bos_id=-1,
        minloglevel=2,
    )
    joint = SentencePiece(written.getvalue())
    return Tokenizers(joint, joint)


def write_pairs(seed):
    """Words of up to three letters, and the same words backwards."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdef", k=draw.randint(1, 3))) for _ in range(97)]
    Path("train.a").write_text("".join(f"{word} {word}\n" for word in words))
    Path("train.b").write_text("".join(f"{word[::-1]} {word[::-1]}\n" for word in words))


def main(archive):
    """Trains, and packs what belongs into the repository."""
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        write_pairs(seed=7)
        datasets.train_tokenizers = small_tokenizers
        loop.train(EXPERIMENT, "run")
        run = RunFolder("run")
        params, _ = read_parameters(run, EXPERIMENT, data_mesh())
        expected = {"parameters": digests_of(params), "logits": logits_of(EXPERIMENT.model, params).round(7).tolist()}
        (run.path / "expected.json").write_text(json.dumps(expected) + "\n")
        with tarfile.open(archive, "x:gz") as packed:
            for kept in (run.config, run.environment, run.tokenizer, run.checkpoints, run.path / "expected.json"):
                packed.add(kept, kept.name)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    main(Path(sys.argv[1]).absolute())
