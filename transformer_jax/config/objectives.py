"""What a model is trained to do with the text it is given."""

from typing import Annotated, Literal

import pydantic

from transformer_jax.checked import config, require, require_positive


@config
class Translation:
    """Teacher forcing (Vaswani et al., 2017): every token of the target, given its source and those before it."""

    kind: Literal["translation"] = "translation"


@config
class CausalLanguageModel:
    """Every token of a text, given those before it (Radford et al., 2018)."""

    kind: Literal["causal"] = "causal"
    prompted: bool = False  # the data is pairs: sources are prompts, and only what is behind them counts


@config
class PrefixLanguageModel:
    """The rest of a text, given its beginning (Raffel et al., 2020, 3.3.1), cut at a place drawn for each epoch."""

    kind: Literal["prefix"] = "prefix"


@config
class MaskedLanguageModel:
    """What stood at masked places (Devlin et al., 2019), drawn for each epoch (Liu et al., 2019)."""

    kind: Literal["masked"] = "masked"
    share: float = 0.15  # of the tokens that are predicted
    masked: float = 0.8  # of these, the share that is masked
    random: float = 0.1  # of these, the share that is another token; the rest stays as it is
    whole_words: bool = False  # all pieces of a word are predicted together, or none

    def __post_init__(self) -> None:
        _require_open_share(self, "share")
        shares = (self.masked, self.random)
        require(min(shares) >= 0 and sum(shares) <= 1, f"masked={self.masked}, random={self.random}: shares of a whole")


@config
class SpanCorruption:
    """Spans of a text that stand in it as a mark each, one behind the other with their marks (Raffel et al., 2020)."""

    kind: Literal["spans"] = "spans"
    share: float = 0.15  # of the tokens that are in spans
    length: float = 3.0  # mean tokens of a span

    def __post_init__(self) -> None:
        _require_open_share(self, "share")
        require(self.length >= 1, f"length={self.length} must be at least 1")


@config
class Denoising:
    """A whole text, given one with spans that are a mask each, some of no token (Lewis et al., 2020, infilling)."""

    kind: Literal["denoising"] = "denoising"
    share: float = 0.3  # of the tokens that are in spans
    length: float = 3.0  # mean of the Poisson distribution that the lengths of spans are drawn from

    def __post_init__(self) -> None:
        _require_open_share(self, "share")
        require_positive(self, "length")


@config
class Classification:
    """Which class a text is of (Devlin et al., 2019, 3.2); the target side of the data names it."""

    kind: Literal["classification"] = "classification"
    labels: tuple[str, ...] = ("0", "1")  # as the data has them, each a class

    def __post_init__(self) -> None:
        require(len(self.labels) > 1, f"labels={self.labels}: a classifier needs two of them or more")
        require(len(set(self.labels)) == len(self.labels), f"labels={self.labels}: one is there twice")


def reads_pairs(objective: "ObjectiveConfig") -> bool:
    """Whether an objective needs sources and targets; the others learn from plain texts."""
    prompted = isinstance(objective, CausalLanguageModel) and objective.prompted
    return prompted or isinstance(objective, Translation | Classification)


def _require_open_share(owner: object, name: str) -> None:
    share = getattr(owner, name)
    require(0 < share < 1, f"{name}={share} must be between 0 and 1")


ObjectiveConfig = Annotated[
    Translation
    | CausalLanguageModel
    | PrefixLanguageModel
    | MaskedLanguageModel
    | SpanCorruption
    | Denoising
    | Classification,
    pydantic.Field(discriminator="kind"),
]
