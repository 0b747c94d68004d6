"""An experiment as data: frozen dataclasses, checked as they are made. Imports no jax.

A field is of one of two kinds. An *identity* field changes the numbers of a run: a resume with another value is
refused. A *placement* field says where or how the run happens and may differ on a resume. The comment behind a field
is its `--help` text.
"""

import dataclasses
import json
from typing import Annotated, Literal

import pydantic

from transformer_jax.checked import (
    checked_from_json,
    config,
    fields_of,
    leaves_of,
    placement,
    require,
    require_positive,
    require_share,
)


@config
class ModelConfig:
    """The sizes and parts of the Transformer; the defaults are the paper's base model."""

    encoder_layers: int = 6  # N of the encoder; 0 makes a decoder-only model
    decoder_layers: int = 6  # N of the decoder; 0 makes an encoder-only model
    width: int = 512  # d_model
    num_heads: int = 8  # h
    head_width: int | None = None  # d_k = d_v; None is width // num_heads
    ffn_width: int = 2048  # d_ff
    vocab_size: int = 37_000  # of the target, and of the source where the two are one
    source_vocab_size: int | None = None  # None is vocab_size
    activation: Literal["relu", "gelu", "silu"] = "relu"  # of the feed-forward network
    gated: bool = False  # feed-forward with a gate: activation(x W_g) * (x W_1)
    norm: Literal["post", "pre"] = "post"  # post as published; pre for depth and easy training
    norm_epsilon: float = 1e-6  # added to the variance
    positions: Literal["interleaved", "halves", "authors", "learned"] = (
        "interleaved"  # halves: sines, then cosines; authors: halves with the frequencies of the authors' code
    )
    max_positions: int = 1024  # rows of the learned positions; sinusoids have no limit
    share_embeddings: Literal["all", "target", "none"] = (
        "all"  # all: source, target and output are one matrix; target: target and output
    )
    output_bias: bool = False  # a bias on the logits
    dropout: float = 0.1  # P_drop, on embeddings and on the output of each sublayer
    attention_dropout: float = 0.0  # on attention weights
    activation_dropout: float = 0.0  # inside the feed-forward network
    pad_id: int = 0  # embeds as zero; what the decoder starts from
    dtype: Literal["float32", "bfloat16"] = "float32"  # of activations; parameters stay float32

    def __post_init__(self) -> None:
        require_positive(self, "width", "num_heads", "ffn_width", "vocab_size", "norm_epsilon", "max_positions")
        require_share(self, "dropout", "attention_dropout", "activation_dropout")
        require(self.encoder_layers >= 0, f"encoder_layers={self.encoder_layers} must not be negative")
        require(self.decoder_layers >= 0, f"decoder_layers={self.decoder_layers} must not be negative")
        require(
            self.encoder_layers + self.decoder_layers > 0,
            "encoder_layers=0 and decoder_layers=0: a model needs a layer",
        )
        if self.head_width is None:
            require(
                self.width % self.num_heads == 0,
                f"num_heads={self.num_heads} does not divide width={self.width}; choose others, or set head_width",
            )
        else:
            require_positive(self, "head_width")
        require(
            self.width % 2 == 0 or self.positions == "learned",
            f"width={self.width} is odd; sinusoidal positions pair sines with cosines and need an even width",
        )
        require(
            self.source_vocab_size is None or self.share_embeddings != "all",
            f"source_vocab_size={self.source_vocab_size} needs share_embeddings of 'target' or 'none'",
        )
        require(
            0 <= self.pad_id < self.vocab_size, f"pad_id={self.pad_id} is not in the vocabulary of {self.vocab_size}"
        )

    @property
    def channels(self) -> int:
        """Channels of one head: d_k of the paper."""
        return self.width // self.num_heads if self.head_width is None else self.head_width


@config
class Numerals:
    """Pairs made on the spot: a number in English words and in German words."""

    kind: Literal["numerals"] = "numerals"
    limit: int = 100_000  # numbers from 0 to limit - 1
    test_numbers: int = 1_000  # size of the test split, drawn by hash, stratified by digit count
    validation_numbers: int = 500  # size of the validation split, drawn likewise

    def __post_init__(self) -> None:
        require_positive(self, "test_numbers", "validation_numbers")
        held_out = self.test_numbers + self.validation_numbers
        require(
            self.limit >= 10 * held_out and self.limit <= 10**9,
            f"limit={self.limit} must be between 10 times the held-out numbers, {10 * held_out}, and 1,000,000,000",
        )


@config
class TextFiles:
    """Pairs from aligned text files, one sentence a line, plain or .gz; each split is (source file, target file)."""

    kind: Literal["text"] = "text"
    dir: str = placement(default=".")  # folder of the files
    train: tuple[str, str] = placement(default=("train.source", "train.target"))  # files of the training pairs
    validation: tuple[str, str] | None = placement(default=None)  # files of the validation pairs
    test: tuple[str, str] | None = placement(default=None)  # files of the test pairs
    url: str | None = placement(default=None)  # where files that are missing are fetched from
    sha256: tuple[tuple[str, str], ...] = ()  # (file, digest): refused when its bytes differ


@config
class TsvFiles:
    """Pairs from tab-separated files, plain or .gz, one pair a line."""

    kind: Literal["tsv"] = "tsv"
    dir: str = placement(default=".")  # folder of the files
    train: str = placement(default="train.tsv")  # file of the training pairs
    validation: str | None = placement(default=None)  # file of the validation pairs
    test: str | None = placement(default=None)  # file of the test pairs
    columns: tuple[int, int] = (0, 1)  # columns of source and target, from 0


@config
class TensorflowDataset:
    """Pairs from TensorFlow Datasets by name, read as array_record, without TensorFlow."""

    kind: Literal["tfds"] = "tfds"
    name: str = "wmt14_translate/de-en"  # as in the catalogue: name/config:version
    dir: str | None = placement(default=None)  # where the prepared set lies; None is ~/tensorflow_datasets
    source: str = "en"  # feature of the source side
    target: str = "de"  # feature of the target side
    train: str = placement(default="train")  # split of the training pairs
    validation: str | None = placement(default="validation")  # split of the validation pairs
    test: str | None = placement(default="test")  # split of the test pairs


DataConfig = Annotated[Numerals | TextFiles | TsvFiles | TensorflowDataset, pydantic.Field(discriminator="kind")]


@config
class TokenizerConfig:
    """SentencePiece, trained on the training text; its sizes are the model's vocab_size and source_vocab_size."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    joint: bool = True  # one vocabulary for both sides
    character_coverage: float = 1.0  # share of characters kept; the rest become the unknown piece
    split_digits: bool = False  # every digit a piece

    def __post_init__(self) -> None:
        require(0 < self.character_coverage <= 1, f"character_coverage={self.character_coverage} must be in (0, 1]")


@config
class BatchConfig:
    """A training batch: rows into which pairs are packed whole, on all devices and processes together."""

    rows: int = 96  # global number of rows
    source_length: int = 256  # tokens of a row; a longer sentence is dropped and counted
    target_length: int = 256  # the same for the target, its end token included

    def __post_init__(self) -> None:
        require_positive(self, "rows", "source_length", "target_length")


@config
class Adam:
    """Adam with the paper's constants; with weight_decay it is AdamW."""

    kind: Literal["adam"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        require_share(self, "beta1", "beta2")
        require_positive(self, "epsilon")


@config
class AdamW:
    """Adam with decoupled weight decay on matrices."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.01  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        require_share(self, "beta1", "beta2")
        require_positive(self, "epsilon")
        require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


OptimizerConfig = Annotated[Adam | AdamW, pydantic.Field(discriminator="kind")]


@config
class PaperSchedule:
    """The paper's: scale * width^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""

    kind: Literal["paper"] = "paper"
    warmup_steps: int = 4000
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "warmup_steps", "scale")


@config
class Schedule:
    """A linear warm-up from 0 to the peak, then the decay of this kind down to the end of the run."""

    kind: Literal["linear", "cosine", "inverse_sqrt", "constant"] = "linear"
    peak: float = 1e-3  # highest learning rate, reached at the end of the warm-up
    warmup_steps: int = 1000
    final: float = 0.0  # learning rate at the last step, of linear and cosine

    def __post_init__(self) -> None:
        require_positive(self, "peak")
        require(self.warmup_steps >= 0, f"warmup_steps={self.warmup_steps} must not be negative")
        require(0 <= self.final <= self.peak, f"final={self.final} must be between 0 and peak={self.peak}")


ScheduleConfig = Annotated[PaperSchedule | Schedule, pydantic.Field(discriminator="kind")]


@config
class TrainingConfig:
    """How long and how to train: give steps or epochs."""

    steps: int | None = None  # optimizer steps
    epochs: int | None = None  # passes over the training pairs
    label_smoothing: float = 0.1  # epsilon_ls
    clip_norm: float | None = None  # gradients are scaled down to this global norm
    accumulation: int = 1  # parts a batch is computed in, one after the other, for less memory
    average_decay: float | None = None  # decay of an exponential moving average of the weights, used to evaluate
    patience: int | None = None  # evaluations without a better metric before the run stops early

    def __post_init__(self) -> None:
        require(
            (self.steps is None) != (self.epochs is None),
            f"steps={self.steps}, epochs={self.epochs}: give one of the two",
        )
        for name in ("steps", "epochs", "clip_norm", "patience"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        require_positive(self, "accumulation")
        require_share(self, "label_smoothing")
        if self.average_decay is not None:
            require_share(self, "average_decay")


@config
class EvaluationConfig:
    """What is measured while training, on the validation split."""

    every: int = 5_000  # steps between two evaluations; the last step is always evaluated
    translations: int | None = 500  # sentences translated and scored at each; None is all, 0 is none
    bleu_tokenizer: Literal["13a", "intl", "char", "zh", "none"] = "13a"  # of sacrebleu; char for text without spaces
    metric: Literal["loss", "bleu", "chrf"] = "loss"  # decides the best checkpoint and early stopping

    def __post_init__(self) -> None:
        require_positive(self, "every")
        require(
            self.translations is None or self.translations >= 0,
            f"translations={self.translations} must not be negative",
        )
        require(self.metric == "loss" or self.translations != 0, f"metric={self.metric!r} needs translations above 0")


@config
class CheckpointConfig:
    """When checkpoints are written and which stay."""

    every: int = placement(default=1_000)  # steps between two checkpoints; the last step is always saved
    newest: int = placement(default=3)  # checkpoints kept by age
    best: int = placement(default=1)  # checkpoints kept by evaluation.metric, beside the newest

    def __post_init__(self) -> None:
        require_positive(self, "every", "newest")
        require(self.best >= 0, f"best={self.best} must not be negative")


@config
class DecodingConfig:
    """How sentences are translated; the defaults are the paper's."""

    beam: int = 4  # hypotheses kept; 1 is greedy
    length_penalty: float = 0.6  # alpha of ((5 + length) / 6)^alpha
    extra_length: int = 50  # a translation is at most this many tokens longer than its source
    batch_size: int = placement(default=64)  # sentences translated at once

    def __post_init__(self) -> None:
        require_positive(self, "beam", "extra_length", "batch_size")
        require(self.length_penalty >= 0, f"length_penalty={self.length_penalty} must not be negative")


@config
class MeshConfig:
    """Devices along each axis of the mesh; one of them may be -1: all that remain."""

    data: int = -1  # copies of the model, each with a share of the batch
    fsdp: int = 1  # devices that share one copy of parameters and optimizer, and the batch too
    tensor: int = 1  # devices that share each matrix product; divides num_heads

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(size > 0 or size == -1 for size in sizes), f"mesh {sizes}: every axis is above 0, or -1")
        require(sizes.count(-1) <= 1, f"mesh {sizes}: only one axis may be -1")


@config
class LoggingConfig:
    """What is shown and written while training."""

    every: int = 100  # steps between two lines of metrics
    tensorboard: bool = True  # also write TensorBoard events

    def __post_init__(self) -> None:
        require_positive(self, "every")


@config
class Experiment:
    """One training run, whole; saved in its run folder as config.json."""

    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = Adam()
    schedule: ScheduleConfig = PaperSchedule()
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    decoding: DecodingConfig = DecodingConfig()
    mesh: MeshConfig = placement(default=MeshConfig())
    logging: LoggingConfig = placement(default=LoggingConfig())
    seed: int = 0

    def __post_init__(self) -> None:
        model, batch = self.model, self.batch
        require(self.seed >= 0, f"seed={self.seed} must not be negative")
        require(model.encoder_layers > 0, "model.encoder_layers=0: a translation model has an encoder")
        require(model.decoder_layers > 0, "model.decoder_layers=0: a translation model has a decoder")
        require(
            self.tokenizer.joint or model.share_embeddings != "all",
            "tokenizer.joint=False needs model.share_embeddings of 'target' or 'none'",
        )
        require(
            not self.tokenizer.joint or model.source_vocab_size is None,
            f"model.source_vocab_size={model.source_vocab_size} needs tokenizer.joint=False",
        )
        require(model.pad_id == 0, f"model.pad_id={model.pad_id}: the tokenizers of an experiment pad with 0")
        longest = max(batch.source_length, batch.target_length) + self.decoding.extra_length
        require(
            model.positions != "learned" or longest <= model.max_positions,
            f"model.max_positions={model.max_positions} is below {longest}, the longest of batch.source_length="
            f"{batch.source_length} and batch.target_length={batch.target_length} and decoding.extra_length above it",
        )
        require(
            batch.rows % self.training.accumulation == 0,
            f"training.accumulation={self.training.accumulation} does not divide batch.rows={batch.rows}",
        )
        require(
            self.mesh.tensor <= 0 or model.num_heads % self.mesh.tensor == 0,
            f"mesh.tensor={self.mesh.tensor} does not divide model.num_heads={model.num_heads}",
        )


def to_json(experiment: Experiment) -> str:
    """The experiment as indented JSON, as config.json holds it."""
    return json.dumps(dataclasses.asdict(experiment), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Experiment:
    """The experiment of a config.json.

    Raises:
        InputError: on JSON that is broken, and on unknown fields and wrong values, by name.
    """
    return checked_from_json(Experiment, text)


def identity_difference(old: Experiment, new: Experiment) -> list[str]:
    """The identity fields in which two experiments differ, a line `name: old -> new` each."""
    placements = {name for name, is_placement in fields_of(Experiment) if is_placement}
    before, after = (dict(leaves_of(dataclasses.asdict(experiment))) for experiment in (old, new))
    names = [name for name in {**before, **after} if name not in placements and before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names]
