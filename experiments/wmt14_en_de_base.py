"""WMT 2014 English to German, Transformer base: Vaswani et al. (2017), table 3, row "base".

    transformer-jax train experiments/wmt14_en_de_base.py --workdir runs/wmt14_en_de_base

To expect: a model of about 65 million parameters, trained on 4.5 million pairs. The paper took 12 hours on 8 P100 and
reports 27.3 BLEU on newstest2014, averaged over the last 5 checkpoints; this file has not been run to its end.
"""

from transformer_jax.config import (
    Adam,
    BatchConfig,
    CheckpointConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    PaperSchedule,
    TensorflowDataset,
    TokenizerConfig,
    TrainingConfig,
)


def get_config() -> Experiment:
    """The paper's base model, as published; what it states is said here even where it is the default."""
    return Experiment(
        data=TensorflowDataset(name="wmt14_translate/de-en", source="en", target="de"),
        tokenizer=TokenizerConfig(algorithm="bpe", joint=True),
        batch=BatchConfig(rows=96, source_length=256, target_length=256),  # the paper's 25,000 tokens of each side
        model=ModelConfig(
            encoder_layers=6,
            decoder_layers=6,
            width=512,
            num_heads=8,
            ffn_width=2048,
            vocab_size=37_000,
            norm="post",
            share_embeddings="all",
            dropout=0.1,
            dtype="bfloat16",
        ),
        optimizer=Adam(beta1=0.9, beta2=0.98, epsilon=1e-9),
        schedule=PaperSchedule(warmup_steps=4_000),
        training=TrainingConfig(steps=100_000, label_smoothing=0.1),
        evaluation=EvaluationConfig(every=5_000),
        checkpoints=CheckpointConfig(every=1_250, newest=5),  # 8 minutes of the paper's 0.4 s steps; 5 are averaged
        decoding=DecodingConfig(beam=4, length_penalty=0.6, extra_length=50),
    )
