"""Talks, German to English: IWSLT 2014, 160,000 pairs as fairseq prepares them, lower-cased and tokenised.

    transformer-jax train experiments/iwslt14_de_en.py --workdir runs/iwslt14_de_en
    transformer-jax average runs/iwslt14_de_en --output runs/iwslt14_de_en_average --newest 10
    transformer-jax evaluate runs/iwslt14_de_en_average

To expect: 34.4 (Wu et al., 2019) and 34.6 (R-Drop, 2021) are what papers give for this model as their baseline, on
lower-cased tokens, as here; averaged checkpoints come to about 35. Not run yet: there was no such data where this was
made.

The files are those that fairseq's examples/translation/prepare-iwslt14.sh makes, before BPE: its folder tmp, which is
taken from data/iwslt14.tokenized.de-en/tmp, or another one by --data.dir.
"""

from transformer_jax.config import (
    AdamW,
    BatchConfig,
    CheckpointConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    Schedule,
    TextFiles,
    TrainingConfig,
)


def get_config() -> Experiment:
    """Fairseq's transformer_iwslt_de_en by its README, on one vocabulary of both languages."""
    return Experiment(
        data=TextFiles(
            dir="data/iwslt14.tokenized.de-en/tmp",
            train=("train.de", "train.en"),
            validation=("valid.de", "valid.en"),
            test=("test.de", "test.en"),
        ),
        batch=BatchConfig(rows=16, source_length=256, target_length=256),  # its 4,096 tokens
        model=ModelConfig(
            encoder_layers=6,
            decoder_layers=6,
            width=512,
            num_heads=4,
            ffn_width=1024,
            vocab_size=10_000,
            norm="post",
            share_embeddings="target",
            dropout=0.3,
            dtype="bfloat16",
        ),
        optimizer=AdamW(beta1=0.9, beta2=0.98, epsilon=1e-8, weight_decay=1e-4),
        schedule=Schedule(kind="inverse_sqrt", peak=5e-4, warmup_steps=4_000),
        training=TrainingConfig(steps=50_000, label_smoothing=0.1),
        evaluation=EvaluationConfig(every=2_000, bleu_tokenizer="none", metric="bleu"),
        checkpoints=CheckpointConfig(every=1_000, newest=10),
        decoding=DecodingConfig(beam=5, length_penalty=1.0, length_offset=0.0),
    )
