"""What every strategy has in common: a state, a step, and when a sentence is done."""

import abc
from collections.abc import Sequence
from typing import Generic, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, UInt32

from transformer_jax.decoding.constraints import Constraint
from transformer_jax.decoding.hypotheses import Hypotheses
from transformer_jax.decoding.model import StepModel

State = TypeVar("State")


@flax.struct.dataclass
class Sentences:
    """B sentences before their first token."""

    cache: PyTree  # of the model, B * rows rows that have read nothing yet
    limits: Int[Array, " B"]  # greatest number of tokens of an output, its end included; 0 is no sentence
    constraints: tuple[Constraint, ...]
    keys: UInt32[Array, "B 2"] | None  # the randomness of each, where there is any; see `sampling.keys_of_lines`
    max_length: int = flax.struct.field(pytree_node=False)  # width of the token buffer


class Strategy(abc.ABC, Generic[State]):
    """How outputs are chosen, as pure functions of a state.

    Every leaf of a state has a leading axis of B sentences, or a multiple of it where a sentence has several entries,
    side by side: sentences may be put in and taken out between two steps.
    """

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Rows of the cache that a sentence takes."""

    @property
    def beams(self) -> int:
        """Rows, side by side, that are exchanged among each other; 1 where none are."""
        return 1

    @abc.abstractmethod
    def start(self, model: StepModel, sentences: Sentences) -> State:
        """The state before the first step."""

    @abc.abstractmethod
    def advance(self, model: StepModel, state: State) -> State:
        """One token more for every open hypothesis; the results of a sentence that is done do not change."""

    @abc.abstractmethod
    def is_open(self, state: State) -> Bool[Array, " B"]:
        """Which sentences are not done."""

    @abc.abstractmethod
    def results(self, state: State) -> Hypotheses:
        """The outputs of the sentences that are done."""

    def search(
        self,
        model: StepModel,
        cache: PyTree,
        limits: Int[Array, " B"],
        *,
        max_length: int,
        constraints: Sequence[Constraint] = (),
        keys: UInt32[Array, "B 2"] | None = None,
    ) -> Hypotheses:
        """Decodes B sentences in one `lax.while_loop`; may be jitted whole.

        Decoding starts from the padding id and never emits it. An output that reaches its limit without the end token
        is finished there. A sentence's result does not depend on the others. Of equal candidates the lower token id
        comes first. Logits that are NaN end their hypothesis without a result.

        Args:
            model: The model.
            cache: Any pytree, with B * rows rows that have read nothing yet.
            limits: Greatest number of tokens, end token included, of each sentence. A sentence of limit 0 (a row
                that only fills the batch) gets no output and costs no step.
            max_length: Width of the token buffer; no limit reaches beyond it.
            constraints: What the outputs must and must not contain.
            keys: The randomness of each sentence, where there is any; see `sampling.keys_of_lines`.
        """
        sentences = Sentences(cache, jnp.minimum(limits, max_length), tuple(constraints), keys, max_length)
        return self.results(self.advance_until(model, self.start(model, sentences), 0))

    def advance_until(self, model: StepModel, state: State, still_open: int | Int[Array, ""]) -> State:
        """Steps until no more than so many sentences are open."""
        return jax.lax.while_loop(
            lambda state: jnp.sum(self.is_open(state)) > still_open, lambda state: self.advance(model, state), state
        )
