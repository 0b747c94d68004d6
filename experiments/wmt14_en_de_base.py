"""WMT 2014 English to German, Transformer base: Vaswani et al. (2017), table 3, row "base".

    transformer-jax plan experiments/wmt14_en_de_base.py --on h100:8
    transformer-jax train experiments/wmt14_en_de_base.py --workdir runs/wmt14_en_de_base
    transformer-jax average runs/wmt14_en_de_base --output runs/wmt14_en_de_base_average --newest 5
    transformer-jax evaluate runs/wmt14_en_de_base_average --tokenised de

To expect: a model of 63.0 million parameters (table 3 says 65, of about 37,000 pieces), trained on 4.5 million pairs.
The paper took 12 hours on 8 P100 and reports 27.3 BLEU on newstest2014, averaged over the last 5 checkpoints, which is
the last of the scores that evaluate prints, with compounds split; sacrebleu's, its first, are lower: 26.8 and 26.9 of
OpenNMT's base models (README of CTranslate2). This file has not been run to its end.

The pairs come from TensorFlow Datasets; wmt14_en_de_base.py:hf takes them from the Hugging Face Hub, and
wmt14_en_de_base.py:text from data/wmt14 (--data.dir), where the archives of statmt.org are unpacked. newstest2013 and
newstest2014 are those of sacrebleu, which fetches them: wmt13 and wmt14/full, 3,003 sentences for test, as fairseq has
them. `--held-out.test wmt14` is the official set, of 2,737; the paper does not say which of the two it means.
"""

from typing import Literal, TypeAlias

from transformer_jax.config import (
    Adam,
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    DecodingConfig,
    EvaluationConfig,
    Experiment,
    HuggingFaceDataset,
    ModelConfig,
    PaperSchedule,
    SacrebleuSet,
    TensorflowDataset,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
)

Place: TypeAlias = Literal["tfds", "hf", "text"]

FILES = {
    "de": ("training/europarl-v7.de-en.{}", "commoncrawl.de-en.{}", "training/news-commentary-v9.de-en.{}"),
    "fr": (
        "training/europarl-v7.fr-en.{}",
        "commoncrawl.fr-en.{}",
        "un/undoc.2000.fr-en.{}",
        "training/news-commentary-v9.fr-en.{}",
        "giga-fren.release2.fixed.{}.gz",
    ),
}


def get_config(place: Place = "tfds") -> Experiment:
    """The paper's base model, as published; what it states is said here even where it is the default."""
    return Experiment(
        data=training_pairs("de", place),
        held_out=newstest("de"),
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


def training_pairs(target: str, place: Place) -> DataConfig:
    """The training pairs of WMT 2014 from English into a language."""
    match place:
        case "tfds":
            name = f"wmt14_translate/{target}-en"
            return TensorflowDataset(name=name, source="en", target=target, validation=None, test=None)
        case "hf":
            source, translation = "translation.en", f"translation.{target}"
            return HuggingFaceDataset(name="wmt/wmt14", config=f"{target}-en", source=source, target=translation)
        case "text":
            files = tuple(file.format(side) for file in FILES[target] for side in ("en", target))
            return TextFiles(dir="data/wmt14", train=files)


def newstest(target: str) -> DataConfig:
    """newstest2013 for validation and newstest2014 for test."""
    return SacrebleuSet(pair=f"en-{target}", validation="wmt13", test="wmt14/full")
