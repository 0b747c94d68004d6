"""An experiment as data: frozen dataclasses, checked as they are made. Imports no jax.

A field is of one of two kinds. An *identity* field changes the numbers of a run: a resume with another value is
refused. A *placement* field says where or how the run happens and may differ on a resume. The comment behind a field
is its `--help` text.
"""

import dataclasses
import difflib
import functools
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic

from transformer_jax.errors import InputError

_Config = TypeVar("_Config")


def placement(default: Any) -> Any:
    """A field that says where or how a run happens; it may differ on a resume."""
    return dataclasses.field(default=default, metadata={"placement": True})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field, placement))
def config(cls: type[_Config]) -> type[_Config]:
    """A frozen, keyword-only dataclass that checks the type of each field; a mistake raises a one-line InputError."""
    settings = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    checked: Any = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=settings)(cls)
    initialise: Callable[..., None] = checked.__init__

    @functools.wraps(initialise)
    def checked_initialise(self: object, *args: object, **fields: object) -> None:
        try:
            initialise(self, *args, **fields)
        except pydantic.ValidationError as error:
            raise InputError(_explain(error, checked)) from None

    checked.__init__ = checked_initialise
    return checked


def _explain(error: pydantic.ValidationError, cls: type) -> str:
    """The first mistake of a validation as one line: the field, the value, what would be right."""
    mistake = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in (cls.__name__, *mistake["loc"]))
    if mistake["type"] in ("unexpected_keyword_argument", "unexpected_property"):
        known = [flag for flag, _ in fields_of(cls)]
        wrong = str(mistake["loc"][-1])
        close = difflib.get_close_matches(wrong, known, 1) or difflib.get_close_matches(
            wrong, {flag.rpartition(".")[2] for flag in known}, 1
        )
        return f"{name}: no such field" + (f"; did you mean {close[0]!r}?" if close else f"; there are {known}")
    if mistake["type"] == "value_error":
        return f"{name}: {mistake['ctx']['error']}"
    return f"{name} = {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_positive(owner: object, *names: str) -> None:
    for name in names:
        _require(getattr(owner, name) > 0, f"{name}={getattr(owner, name)} must be above 0")


def _require_share(owner: object, *names: str) -> None:
    for name in names:
        _require(0 <= getattr(owner, name) < 1, f"{name}={getattr(owner, name)} must be in [0, 1)")


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
        _require_positive(self, "width", "num_heads", "ffn_width", "vocab_size", "norm_epsilon", "max_positions")
        _require_share(self, "dropout", "attention_dropout", "activation_dropout")
        _require(self.encoder_layers >= 0, f"encoder_layers={self.encoder_layers} must not be negative")
        _require(self.decoder_layers >= 0, f"decoder_layers={self.decoder_layers} must not be negative")
        _require(
            self.encoder_layers + self.decoder_layers > 0,
            "encoder_layers=0 and decoder_layers=0: a model needs a layer",
        )
        if self.head_width is None:
            _require(
                self.width % self.num_heads == 0,
                f"num_heads={self.num_heads} does not divide width={self.width}; choose heads that do, or set head_width",
            )
        else:
            _require_positive(self, "head_width")
        _require(
            self.width % 2 == 0 or self.positions == "learned",
            f"width={self.width} is odd; sinusoidal positions pair sines with cosines and need an even width",
        )
        _require(
            self.source_vocab_size is None or self.share_embeddings != "all",
            f"source_vocab_size={self.source_vocab_size} needs share_embeddings of 'target' or 'none'",
        )
        _require(
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
        _require_positive(self, "test_numbers", "validation_numbers")
        held_out = self.test_numbers + self.validation_numbers
        _require(
            self.limit >= 10 * held_out and self.limit <= 10**9,
            f"limit={self.limit} must be between 10 times the held-out numbers, {10 * held_out}, and 1,000,000,000",
        )


@config
class TextFiles:
    """Pairs from aligned text files, one sentence a line, plain or .gz; each split is (source file, target file)."""

    kind: Literal["text"] = "text"
    dir: str = placement(".")  # folder of the files
    train: tuple[str, str] = placement(("train.source", "train.target"))  # files of the training pairs
    validation: tuple[str, str] | None = placement(None)  # files of the validation pairs
    test: tuple[str, str] | None = placement(None)  # files of the test pairs
    url: str | None = placement(None)  # where files that are missing are fetched from
    sha256: tuple[tuple[str, str], ...] = ()  # (file, digest): refused when its bytes differ


@config
class TsvFiles:
    """Pairs from tab-separated files, plain or .gz, one pair a line."""

    kind: Literal["tsv"] = "tsv"
    dir: str = placement(".")  # folder of the files
    train: str = placement("train.tsv")  # file of the training pairs
    validation: str | None = placement(None)  # file of the validation pairs
    test: str | None = placement(None)  # file of the test pairs
    columns: tuple[int, int] = (0, 1)  # columns of source and target, from 0


@config
class TensorflowDataset:
    """Pairs from TensorFlow Datasets by name, read as array_record, without TensorFlow."""

    kind: Literal["tfds"] = "tfds"
    name: str = "wmt14_translate/de-en"  # as in the catalogue: name/config:version
    dir: str | None = placement(None)  # where the prepared set lies; None is ~/tensorflow_datasets
    source: str = "en"  # feature of the source side
    target: str = "de"  # feature of the target side
    train: str = placement("train")  # split of the training pairs
    validation: str | None = placement("validation")  # split of the validation pairs
    test: str | None = placement("test")  # split of the test pairs


DataConfig = Annotated[Numerals | TextFiles | TsvFiles | TensorflowDataset, pydantic.Field(discriminator="kind")]


@config
class TokenizerConfig:
    """SentencePiece, trained on the training text; its sizes are the model's vocab_size and source_vocab_size."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    joint: bool = True  # one vocabulary for both sides
    character_coverage: float = 1.0  # share of characters kept; the rest become the unknown piece
    split_digits: bool = False  # every digit a piece

    def __post_init__(self) -> None:
        _require(0 < self.character_coverage <= 1, f"character_coverage={self.character_coverage} must be in (0, 1]")


@config
class BatchConfig:
    """A training batch: rows into which pairs are packed whole, on all devices and processes together."""

    rows: int = 96  # global number of rows
    source_length: int = 256  # tokens of a row; a longer sentence is dropped and counted
    target_length: int = 256  # the same for the target, its end token included

    def __post_init__(self) -> None:
        _require_positive(self, "rows", "source_length", "target_length")


@config
class Adam:
    """Adam with the paper's constants; with weight_decay it is AdamW."""

    kind: Literal["adam"] = "adam"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        _require_share(self, "beta1", "beta2")
        _require_positive(self, "epsilon")


@config
class AdamW:
    """Adam with decoupled weight decay on matrices."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.01  # times the learning rate; matrices only, no biases or norms

    def __post_init__(self) -> None:
        _require_share(self, "beta1", "beta2")
        _require_positive(self, "epsilon")
        _require(self.weight_decay >= 0, f"weight_decay={self.weight_decay} must not be negative")


OptimizerConfig = Annotated[Adam | AdamW, pydantic.Field(discriminator="kind")]


@config
class PaperSchedule:
    """The paper's: scale * width^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""

    kind: Literal["paper"] = "paper"
    warmup_steps: int = 4000
    scale: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self, "warmup_steps", "scale")


@config
class Schedule:
    """A linear warm-up from 0 to the peak, then the decay of this kind down to the end of the run."""

    kind: Literal["linear", "cosine", "inverse_sqrt", "constant"] = "linear"
    peak: float = 1e-3  # highest learning rate, reached at the end of the warm-up
    warmup_steps: int = 1000
    final: float = 0.0  # learning rate at the last step, of linear and cosine

    def __post_init__(self) -> None:
        _require_positive(self, "peak")
        _require(self.warmup_steps >= 0, f"warmup_steps={self.warmup_steps} must not be negative")
        _require(0 <= self.final <= self.peak, f"final={self.final} must be between 0 and peak={self.peak}")


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
        _require(
            (self.steps is None) != (self.epochs is None),
            f"steps={self.steps}, epochs={self.epochs}: give one of the two",
        )
        for name in ("steps", "epochs", "clip_norm", "patience"):
            if getattr(self, name) is not None:
                _require_positive(self, name)
        _require_positive(self, "accumulation")
        _require_share(self, "label_smoothing")
        if self.average_decay is not None:
            _require_share(self, "average_decay")


@config
class EvaluationConfig:
    """What is measured while training, on the validation split."""

    every: int = 5_000  # steps between two evaluations; the last step is always evaluated
    translations: int | None = 500  # sentences translated and scored at each; None is all, 0 is none
    metric: Literal["loss", "bleu", "chrf"] = "loss"  # decides the best checkpoint and early stopping

    def __post_init__(self) -> None:
        _require_positive(self, "every")
        _require(
            self.translations is None or self.translations >= 0,
            f"translations={self.translations} must not be negative",
        )
        _require(self.metric == "loss" or self.translations != 0, f"metric={self.metric!r} needs translations above 0")


@config
class CheckpointConfig:
    """When checkpoints are written and which stay."""

    every: int = placement(1_000)  # steps between two checkpoints; the last step is always saved
    newest: int = placement(3)  # checkpoints kept by age
    best: int = placement(1)  # checkpoints kept by evaluation.metric, beside the newest

    def __post_init__(self) -> None:
        _require_positive(self, "every", "newest")
        _require(self.best >= 0, f"best={self.best} must not be negative")


@config
class DecodingConfig:
    """How sentences are translated; the defaults are the paper's."""

    beam: int = 4  # hypotheses kept; 1 is greedy
    length_penalty: float = 0.6  # alpha of ((5 + length) / 6)^alpha
    extra_length: int = 50  # a translation is at most this many tokens longer than its source
    batch_size: int = placement(64)  # sentences translated at once

    def __post_init__(self) -> None:
        _require_positive(self, "beam", "extra_length", "batch_size")
        _require(self.length_penalty >= 0, f"length_penalty={self.length_penalty} must not be negative")


@config
class MeshConfig:
    """Devices along each axis of the mesh; one of them may be -1: all that remain."""

    data: int = -1  # copies of the model, each with a share of the batch
    fsdp: int = 1  # devices that share one copy of parameters and optimizer, and the batch too
    tensor: int = 1  # devices that share each matrix product; divides num_heads

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        _require(all(size > 0 or size == -1 for size in sizes), f"mesh {sizes}: every axis is above 0, or -1")
        _require(sizes.count(-1) <= 1, f"mesh {sizes}: only one axis may be -1")


@config
class LoggingConfig:
    """What is shown and written while training."""

    every: int = 100  # steps between two lines of metrics
    tensorboard: bool = True  # also write TensorBoard events

    def __post_init__(self) -> None:
        _require_positive(self, "every")


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
    mesh: MeshConfig = placement(MeshConfig())
    logging: LoggingConfig = placement(LoggingConfig())
    seed: int = 0

    def __post_init__(self) -> None:
        model, batch = self.model, self.batch
        _require(model.encoder_layers > 0, "model.encoder_layers=0: a translation model has an encoder")
        _require(model.decoder_layers > 0, "model.decoder_layers=0: a translation model has a decoder")
        _require(
            self.tokenizer.joint or model.share_embeddings != "all",
            "tokenizer.joint=False needs model.share_embeddings of 'target' or 'none'",
        )
        _require(
            not self.tokenizer.joint or model.source_vocab_size is None,
            f"model.source_vocab_size={model.source_vocab_size} needs tokenizer.joint=False",
        )
        _require(
            model.positions != "learned" or max(batch.source_length, batch.target_length) <= model.max_positions,
            f"batch lengths {batch.source_length}, {batch.target_length} pass model.max_positions={model.max_positions}",
        )
        _require(
            batch.rows % self.training.accumulation == 0,
            f"training.accumulation={self.training.accumulation} does not divide batch.rows={batch.rows}",
        )
        _require(
            self.mesh.tensor <= 0 or model.num_heads % self.mesh.tensor == 0,
            f"mesh.tensor={self.mesh.tensor} does not divide model.num_heads={model.num_heads}",
        )


def fields_of(cls: type, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Every leaf field of a config class as (dotted name, whether it is placement); unions give all their members'."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        is_placement = bool(field.metadata.get("placement"))
        members = [hint for hint in _members(hints[field.name]) if dataclasses.is_dataclass(hint)]
        if not members:
            yield prefix + field.name, is_placement
        for member in members:
            for name, inner in fields_of(typing.cast(type, member), f"{prefix}{field.name}."):
                yield name, is_placement or inner


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def to_json(experiment: Experiment) -> str:
    """The experiment as indented JSON, as config.json holds it."""
    return json.dumps(dataclasses.asdict(experiment), indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Experiment:
    """The experiment of a config.json.

    Raises:
        InputError: on JSON that is broken, and on unknown fields and wrong values, by name.
    """
    try:
        return pydantic.TypeAdapter(Experiment).validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(_explain(error, Experiment)) from None


def identity_difference(old: Experiment, new: Experiment) -> list[str]:
    """The identity fields in which two experiments differ, a line `name: old -> new` each."""
    placements = {name for name, is_placement in fields_of(Experiment) if is_placement}
    before, after = (dict(_leaves(dataclasses.asdict(experiment))) for experiment in (old, new))
    names = [name for name in {**before, **after} if name not in placements and before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
