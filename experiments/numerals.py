"""Number words, English to German: "forty-two" becomes "zweiundvierzig"; the pairs are made on the spot.

The first thing to run: needs no data and no accelerator. To expect: more than 99% of 1,000 held-out numbers exact,
after 4 minutes on 2 CPU cores.

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
        tokenizer=TokenizerConfig(examples=10_000),  # they have every word many times
        batch=BatchConfig(rows=24, source_length=64, target_length=64),
        model=ModelConfig(
            encoder_layers=2,
            decoder_layers=2,
            width=128,
            num_heads=4,
            ffn_width=512,
            vocab_size=150,
            norm="pre",
            dropout=0.1,
        ),
        schedule=Schedule(kind="cosine", peak=2e-3, warmup_steps=200),
        training=TrainingConfig(steps=1_500, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=300, translations=100, bleu_tokenizer="char"),
        checkpoints=CheckpointConfig(every=300),
        logging=LoggingConfig(every=50),
    )
