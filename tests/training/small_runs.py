"""A small experiment on thirteen pairs, for runs within the process of the tests."""

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

WORDS = ["a b", "b c a", "c", "d a c b", "b b", "c d", "a a d", "d", "c a", "b d b", "a c", "d d a", "c c b"]


def write_words(folder):
    """Thirteen pairs: words, and the same words backwards."""
    (folder / "train.source").write_text("".join(f"{words}\n" for words in WORDS))
    (folder / "train.target").write_text("".join(f"{words[::-1]}\n" for words in WORDS))
    return TextFiles(dir=str(folder))


def experiment(data, steps=12, **fields):
    """An experiment on these pairs, with a line of metrics for each step."""
    return Experiment(
        **{
            "data": data,
            "batch": BatchConfig(rows=3, source_length=7, target_length=11),
            "model": ModelConfig(
                encoder_layers=1, decoder_layers=1, width=10, num_heads=1, ffn_width=14, vocab_size=12, dropout=0.1
            ),
            "schedule": Schedule(kind="constant", peak=1e-2, warmup_steps=3),
            "training": TrainingConfig(steps=steps),
            "checkpoints": CheckpointConfig(every=4),
            "logging": LoggingConfig(every=1, tensorboard=False),
            "mesh": MeshConfig(data=1),
        }
        | fields
    )
