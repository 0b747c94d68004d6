"""Talks, Portuguese to English: TED HRLR, the set of TensorFlow's tutorial of the Transformer, 51,785 pairs.

    transformer-jax train experiments/ted_hrlr_pt_en.py --workdir runs/ted_hrlr_pt_en
    transformer-jax evaluate runs/ted_hrlr_pt_en

To expect: no BLEU that was published of these settings is known here; the tutorial itself counts none. Not run yet:
there was no such data where this was made.

The set is fetched by TensorFlow Datasets, or lies prepared in --data.dir. Its text is tokenised, so BLEU is counted on
the tokens as they are: such scores do not compare with those on plain text.
"""

from transformer_jax.config import (
    BatchConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    PaperSchedule,
    TensorflowDataset,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Experiment:
    """The tutorial's sizes and schedule; its batches of 64 pairs are about as many tokens as one here."""
    return Experiment(
        data=TensorflowDataset(name="ted_hrlr_translate/pt_to_en", source="pt", target="en"),
        tokenizer=TokenizerConfig(joint=False),
        batch=BatchConfig(rows=16, source_length=128, target_length=128),
        model=ModelConfig(
            encoder_layers=4,
            decoder_layers=4,
            width=128,
            num_heads=8,
            ffn_width=512,
            vocab_size=8_000,
            source_vocab_size=8_000,
            norm="post",
            share_embeddings="none",
            dropout=0.1,
        ),
        schedule=PaperSchedule(warmup_steps=4_000),
        training=TrainingConfig(epochs=20, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=1_000, translations=200, bleu_tokenizer="none"),
    )
