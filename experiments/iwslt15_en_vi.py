"""Talks, English to Vietnamese: IWSLT 2015, 133,317 pairs as Stanford has them, tokenised.

    transformer-jax train experiments/iwslt15_en_vi.py --workdir runs/iwslt15_en_vi
    transformer-jax average runs/iwslt15_en_vi --output runs/iwslt15_en_vi_average --newest 10
    transformer-jax evaluate runs/iwslt15_en_vi_average

To expect on tst2013: 28.5 is tensor2tensor's base model after 50,000 steps (stefan-it/nmt-en-vi, BLEU on its own
tokens), 32.8 the best of Nguyen and Salazar (2019), with fewer pieces, more dropout and other norms, of which this file
takes the first two. Not run yet: there was no such data where this was made.

The six files are taken from the folder data/iwslt15.en-vi, or another one by --data.dir; those that are missing are
fetched from Stanford. Their text is tokenised, with entities such as &apos; in it: BLEU is counted on it as it is.
"""

from transformer_jax.config import (
    BatchConfig,
    CheckpointConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    PaperSchedule,
    TextFiles,
    TrainingConfig,
)


def get_config() -> Experiment:
    """The base model for a small set: pre-norm, 8,000 pieces, dropout of 0.3."""
    return Experiment(
        data=TextFiles(
            dir="data/iwslt15.en-vi",
            train=("train.en", "train.vi"),
            validation=("tst2012.en", "tst2012.vi"),
            test=("tst2013.en", "tst2013.vi"),
            url="https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi",
        ),
        batch=BatchConfig(rows=16, source_length=256, target_length=256),
        model=ModelConfig(vocab_size=8_000, norm="pre", dropout=0.3, dtype="bfloat16"),
        schedule=PaperSchedule(warmup_steps=8_000),
        training=TrainingConfig(steps=50_000, label_smoothing=0.1),
        evaluation=EvaluationConfig(every=2_000, bleu_tokenizer="none", metric="bleu"),
        checkpoints=CheckpointConfig(every=1_000, newest=10),
    )
