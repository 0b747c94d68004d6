"""The models that translate together."""

import dataclasses
import sys
from collections.abc import Sequence

from jaxtyping import Array, Int, PyTree

from transformer_jax.adapters import without
from transformer_jax.config import ModelConfig
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.decoding import Mean, StepModel, check_weights, ensemble
from transformer_jax.errors import InputError
from transformer_jax.inference import start_cache, step_model
from transformer_jax.models import Parameters, Transformer
from transformer_jax.sizes import Size


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One model or several as one, and by choice a draft model that guesses what they say.

    Parameters are those of every member, and then those of the draft model, which may stand there without one.

    Raises:
        InputError: on weights that are not one for each member.
    """

    members: Sequence[Transformer]
    eos_id: int  # what ends an output
    weights: Sequence[float] | None = None  # None is equal ones
    mean: Mean = "probabilities"
    drafter: Transformer | None = None
    guesses: int = 0  # tokens that the draft model is ahead of the others; 0 without one

    def __post_init__(self) -> None:
        check_weights(len(self.members), self.weights)

    @property
    def positions(self) -> int:
        """Tokens of a sentence at most, by the members' tables of learned positions."""
        return positions_of([model.config for model in self.members])

    def with_draft(self, drafter: Transformer, guesses: int) -> "Ensemble":
        """The same, with a draft model that says so many tokens ahead.

        Raises:
            InputError: when its table of positions ends before those of the members.
        """
        if positions_of([drafter.config]) < self.positions:
            own = "no such limit" if self.positions == sys.maxsize else self.positions
            raise InputError(
                f"the draft model has max_positions={drafter.config.max_positions}, and the model it helps {own}"
            )
        return dataclasses.replace(self, drafter=drafter, guesses=guesses)

    def model(self, params: Sequence[Parameters]) -> StepModel:
        """All members as one; its cache is a tuple."""
        pairs = zip(self.members, params[: len(self.members)], strict=True)
        models = [step_model(model, own, self.eos_id) for model, own in pairs]
        return ensemble(models, self.weights, self.mean)

    def draft(self, params: Sequence[Parameters]) -> StepModel | None:
        """The draft model, where there is one."""
        return None if self.drafter is None else step_model(self.drafter, params[-1], self.eos_id)

    def cache(
        self, params: Sequence[Parameters], tokens: Int[Array, "B S"], *, rows: Size, beams: int, capacity: int
    ) -> PyTree:
        """What the strategy of these models starts from: the members' caches, and with a draft model a pair."""
        caches = tuple(
            start_cache(
                model,
                own,
                tokens if model.config.encoder_layers else None,
                rows=rows,
                beams=beams,
                capacity=capacity,
                ahead=self.guesses,
            )
            for model, own in zip(self._all, params[: len(self._all)], strict=True)
        )
        return caches if self.drafter is None else (caches[:-1], caches[-1])

    @property
    def _all(self) -> Sequence[Transformer]:
        return self.members if self.drafter is None else [*self.members, self.drafter]


def positions_of(models: Sequence[ModelConfig]) -> int:
    """Tokens of a sentence at most, by the models' tables of learned positions."""
    return min((model.max_positions for model in models if model.positions == "learned"), default=sys.maxsize)


def paired(
    model: ModelConfig | Sequence[ModelConfig], params: Parameters | Sequence[Parameters]
) -> list[tuple[ModelConfig, Parameters]]:
    """Each model with its parameters.

    Raises:
        InputError: when there are no models, or not as many parameters.
    """
    models = [model] if isinstance(model, ModelConfig) else list(model)
    each = [params] if isinstance(params, dict) else list(params)
    if not models or len(models) != len(each):
        raise InputError(f"{len(models)} models and the parameters of {len(each)}: as many, and at least one")
    return list(zip(models, each, strict=True))


def networks_of(models: Sequence[ModelConfig], tokenizers: Tokenizers) -> list[Transformer]:
    """Models that have both halves and fit the tokenizers, without adapters, which are merged into their parameters.

    Raises:
        InputError: naming what differs.
    """
    for model in models:
        if not model.encoder_layers or not model.decoder_layers:
            raise InputError(
                f"encoder_layers={model.encoder_layers} and decoder_layers={model.decoder_layers}: a translator needs "
                "both; a model without an encoder generates, one without a decoder classifies"
            )
        check_vocabulary(tokenizers, model)
    return [Transformer(without(model)) for model in models]


def check_vocabulary(tokenizers: Tokenizers, model: ModelConfig) -> None:
    """Checks that a model has the tokenizers' vocabulary sizes and special ids.

    Raises:
        InputError: naming what differs.
    """
    sizes, special = (tokenizers.source.vocab_size, tokenizers.target.vocab_size), tokenizers.target.special
    expected = (model.source_vocab_size or model.vocab_size, model.vocab_size)
    if sizes != expected:
        raise InputError(f"tokenizers of {sizes} pieces (source, target), but the model has {expected}")
    for name, own, theirs in (("pad_id", model.pad_id, special.pad), ("start", model.start, special.start)):
        if own != theirs:
            raise InputError(f"model.{name}={own}, but the tokenizer has {theirs}")
