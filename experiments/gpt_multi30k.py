"""A language model of captions: a decoder alone, as GPT, on the English side of Multi30k or plain text of your own.

    transformer-jax train experiments/gpt_multi30k.py --workdir runs/gpt_multi30k
    echo "A dog" | transformer-jax generate runs/gpt_multi30k --sampling --top-p 0.9 --nbest 5

To expect: on test_2016_flickr a loss of 3.114 nats a token, perplexity 22.5, 1.099 bits a byte, after 41 minutes on 2
CPU cores beside much other work.

Text of your own: --data.dir DIR --data.train 'corpus/*.txt.gz' --data.validation held_out.txt --data.test None, and a
vocabulary and a model of its size. The files of Multi30k: see multi30k_en_de.py, which fetches them.
"""

from transformer_jax.config import (
    AdamW,
    BatchConfig,
    CausalLanguageModel,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    PlainText,
    Schedule,
    TrainingConfig,
)


def get_config() -> Experiment:
    """A pre-norm decoder of 4 layers, 10 passes over 29,000 captions."""
    return Experiment(
        data=PlainText(
            dir="data/multi30k",
            train="train.en.gz",
            validation="val.en.gz",
            test="test_2016_flickr.en.gz",
        ),
        objective=CausalLanguageModel(),
        batch=BatchConfig(rows=16, source_length=64, target_length=64),  # about 1,000 tokens a step
        model=ModelConfig(
            encoder_layers=0,
            decoder_layers=4,
            width=256,
            num_heads=4,
            ffn_width=1024,
            vocab_size=4_000,
            activation="gelu",
            norm="pre",
            dropout=0.2,
        ),
        optimizer=AdamW(beta2=0.98, epsilon=1e-9, weight_decay=0.01),
        schedule=Schedule(kind="cosine", peak=1e-3, warmup_steps=200),
        training=TrainingConfig(epochs=10, label_smoothing=0.0),
        evaluation=EvaluationConfig(every=1_000),
        decoding=DecodingConfig(beam=1, extra_length=40),
    )
