"""A public model, made for your own text: OPUS-MT from English to German, on pairs of your own.

    transformer-jax train experiments/finetune_opus_mt.py --workdir runs/opus --init-from models/opus-mt-en-de \
        --data.dir DIR

The folder is what the Hugging Face Hub has under Helsinki-NLP/opus-mt-en-de, saved as safetensors; with the extra `hub`
and a network the name itself will do. Tokenizers and sizes are the checkpoint's. Not run yet: there
was no such checkpoint where this was made.

With adapters in place of all weights: --model.lora-rank 16. With the encoder as it is: --training.frozen 'encoder/*'.
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
    """Three passes at a low rate; the best checkpoint by BLEU is what remains."""
    return Experiment(
        init_from="Helsinki-NLP/opus-mt-en-de",
        data=TextFiles(
            dir="data/own",
            train=("train.en", "train.de"),
            validation=("val.en", "val.de"),
            test=("test.en", "test.de"),
        ),
        batch=BatchConfig(rows=32, source_length=128, target_length=128),
        model=ModelConfig(dropout=0.1),  # all else is the checkpoint's
        optimizer=AdamW(beta2=0.999, epsilon=1e-8, weight_decay=0.01),
        schedule=Schedule(kind="linear", peak=5e-5, warmup_steps=100),
        training=TrainingConfig(epochs=3, label_smoothing=0.1, clip_norm=1.0),
        evaluation=EvaluationConfig(every=500, translations=200, metric="bleu"),
        checkpoints=CheckpointConfig(every=500),
        decoding=DecodingConfig(beam=4, length_penalty=1.0, length_offset=0.0, narrow_ends=True),
    )
