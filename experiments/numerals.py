"""Number words, English to German: "forty-two" becomes "zweiundvierzig"; the pairs are made on the spot.

The first thing to run: needs no data and no accelerator.

    make train
"""

from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    Experiment,
    LoggingConfig,
    ModelConfig,
    Numerals,
    Schedule,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Experiment:
    """A small pre-norm model, of a size that a laptop trains in minutes."""
    return Experiment(
        data=Numerals(),
        tokenizer=TokenizerConfig(),
        batch=BatchConfig(rows=32, source_length=128, target_length=128),
        model=ModelConfig(
            encoder_layers=2,
            decoder_layers=2,
            width=128,
            num_heads=4,
            ffn_width=512,
            vocab_size=300,
            norm="pre",
            dropout=0.0,
        ),
        schedule=Schedule(kind="cosine", peak=2e-3, warmup_steps=200),
        training=TrainingConfig(steps=2_000, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=500, translations=100),
        checkpoints=CheckpointConfig(every=500),
        logging=LoggingConfig(every=50),
    )
