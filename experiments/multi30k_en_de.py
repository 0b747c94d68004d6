"""Captions of photographs, English to German: Multi30k, task 1, 29,000 pairs.

    transformer-jax train experiments/multi30k_en_de.py --workdir runs/multi30k

To expect: BLEU 37.0 on test_2016_flickr (sacrebleu 13a, mixed case, beam 5) after 40 minutes on 2 CPU cores.

The six files are taken from the folder `data/multi30k`, or another one by `--data.dir`; those that are missing are
fetched from the public repository. The data is for research and education, non-commercial, by its own terms.
test_2016_flickr, unpacked, is what sacrebleu calls multi30k/2016.
"""

from transformer_jax.config import (
    BatchConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    ModelConfig,
    Schedule,
    TextFiles,
    TrainingConfig,
)

COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"


def get_config() -> Experiment:
    """The small setting of the field on this set: width 256, 3 + 3 layers, 10 passes over the data."""
    return Experiment(
        data=TextFiles(
            dir="data/multi30k",
            train=("train.en.gz", "train.de.gz"),
            validation=("val.en.gz", "val.de.gz"),
            test=("test_2016_flickr.en.gz", "test_2016_flickr.de.gz"),
            url=f"https://raw.githubusercontent.com/multi30k/dataset/{COMMIT}/data/task1/raw",
            sha256=(
                ("train.en.gz", "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f"),
                ("train.de.gz", "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6"),
                ("val.en.gz", "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28"),
                ("val.de.gz", "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a"),
                ("test_2016_flickr.en.gz", "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9"),
                ("test_2016_flickr.de.gz", "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8"),
            ),
        ),
        batch=BatchConfig(rows=16, source_length=64, target_length=64),  # about 970 target tokens a step
        model=ModelConfig(
            encoder_layers=3,
            decoder_layers=3,
            width=256,
            num_heads=4,
            ffn_width=1024,
            vocab_size=8_000,
            norm="pre",
            dropout=0.3,
        ),
        schedule=Schedule(kind="linear", peak=1.5e-3, warmup_steps=400),
        training=TrainingConfig(epochs=10, label_smoothing=0.1),
        evaluation=EvaluationConfig(every=1_000, translations=200),
        decoding=DecodingConfig(beam=5),
    )
