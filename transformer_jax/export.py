"""A trained model as StableHLO, to be run by jax alone, on a CPU, a GPU or a TPU.

Three programs, each for any number of sentences: `translate` from source ids to output ids, whole; and `start` and
`step`, the encoder with an empty cache and the decoder over it, for a search of one's own. Parameters are arguments, in
the order of `parameters.npz`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export
from jaxtyping import Array, Float, Int

from transformer_jax.adapters import merged
from transformer_jax.config import DecodingConfig, ModelConfig
from transformer_jax.data.tokenizer import SpecialTokens, Tokenizers
from transformer_jax.decoding import Prefix
from transformer_jax.decoding.hypotheses import Fetched
from transformer_jax.errors import InputError
from transformer_jax.files import write_atomically
from transformer_jax.inference import apply, decoding_parameters, start_cache, step_model
from transformer_jax.models import Parameters, Transformer
from transformer_jax.translation import settings_of, strategy_of

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    model: ModelConfig,
    params: Parameters,
    tokenizers: Tokenizers,
    folder: Path,
    decoding: DecodingConfig,
    length: int,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Writes the programs NAME.jax_export, parameters.npz, tokenizers and export.json into a folder.

    Args:
        model: the model.
        params: its parameters, as training has them.
        tokenizers: of both sides; written as source.model and target.model, or those of a public checkpoint into the
            folder `tokenizer`.
        folder: where to; made where it is not there.
        decoding: how `translate` searches.
        length: source tokens that the programs read: shorter sources are padded.
        platforms: what the programs are for.

    Raises:
        InputError: on sampling, whose draws are not exported, a model without an encoder or a decoder, a length beyond
            learned positions, and when something cannot be written.
    """
    _check(model, decoding, length)
    folder.mkdir(parents=True, exist_ok=True)
    model, params = merged(model, params)
    transformer = Transformer(model)
    leaves, structure = jax.tree.flatten(
        jax.device_get(jax.jit(decoding_parameters, static_argnums=1)(params, model.dtype))
    )
    np.savez(folder / "parameters.npz", *leaves)
    special, blank = tokenizers.target.special, len(tokenizers.source.framed([]))
    programs = Programs(transformer, structure, decoding, length, special, blank)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    (batch,) = jax_export.symbolic_shape("batch")
    source = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    cache = jax.eval_shape(programs.start, weights, source)
    tokens = jax.ShapeDtypeStruct((batch, 1), jnp.int32)
    for name, program, arguments in (
        ("translate", programs.translate, (weights, source)),
        ("start", programs.start, (weights, source)),
        ("step", programs.step, (weights, tokens, cache)),
    ):
        exported = jax_export.export(jax.jit(program), platforms=platforms)(*arguments)
        write_atomically(folder / f"{name}.jax_export", bytes(exported.serialize()))
    if tokenizers.public is None:
        tokenizers.save(folder, apart=True)
    else:
        tokenizers.save(folder / "tokenizer")
    facts = {
        "source_length": length,
        "pad_id": model.pad_id,
        "eos_id": special.eos,
        "start_id": special.start,
        "max_length": programs.max_length,
    }
    write_atomically(folder / "export.json", json.dumps(facts, indent=2) + "\n")


def _check(model: ModelConfig, decoding: DecodingConfig, length: int) -> None:
    if decoding.sampling:
        raise InputError("sampling=True: what is exported draws nothing; leave it out")
    if not model.encoder_layers or not model.decoder_layers:
        layers = f"encoder_layers={model.encoder_layers} and decoder_layers={model.decoder_layers}"
        raise InputError(f"{layers}: what is exported has both")
    if model.positions == "learned" and length > model.max_positions:
        raise InputError(f"length={length}: the model has max_positions={model.max_positions}")


class Programs:
    """The functions that are exported: of plain lists of arrays, which anyone can make."""

    def __init__(
        self,
        model: Transformer,
        structure: Any,
        decoding: DecodingConfig,
        length: int,
        special: SpecialTokens,
        blank: int,  # tokens of a source that says nothing
    ) -> None:
        self._model, self._structure, self._decoding = model, structure, decoding
        self._special, self._blank = special, blank
        self.max_length = max(length, decoding.min_length + 1) + decoding.extra_length
        if model.config.positions == "learned":
            self.max_length = min(self.max_length, model.config.max_positions)
        self._cache_structure: Any = None

    def translate(
        self, weights: list[Array], source: Int[Array, "B S"]
    ) -> tuple[Int[Fetched, "B N T"], Int[Fetched, "B N"], Float[Fetched, "B N"]]:
        """Outputs of each sentence, best first: padded ids, how many they are, and what they are ranked by.

        A source of no more than what stands around every sentence has none.
        """
        params, strategy = self._params(weights), strategy_of(self._decoding)
        lengths = jnp.sum(source != self._model.config.pad_id, axis=1, dtype=jnp.int32)
        least = jnp.maximum(lengths, self._decoding.min_length + 1)
        limits = jnp.where(lengths > self._blank, least + self._decoding.extra_length, 0)
        rows, beams = source.shape[0] * strategy.rows, strategy.beams
        cache = start_cache(self._model, params, source, rows=rows, beams=beams, capacity=self.max_length)
        model = step_model(self._model, params, self._special.eos)
        constraints, before = settings_of(self._decoding, source.shape[0]), self._special.before
        if before:
            first = jnp.broadcast_to(jnp.array(before, jnp.int32), (source.shape[0], len(before)))
            constraints.append(Prefix(first, jnp.full(source.shape[0], len(before), jnp.int32)))
        found = strategy.search(model, cache, limits, max_length=self.max_length, constraints=constraints)
        return found.tokens, found.lengths, found.scores

    def start(self, weights: list[Array], source: Int[Array, "B S"]) -> list[Array]:
        """An empty cache over each sentence, one row each."""
        room = {"rows": source.shape[0], "beams": 1, "capacity": self.max_length}
        cache = start_cache(self._model, self._params(weights), source, **room)
        leaves, self._cache_structure = jax.tree.flatten(cache)
        return leaves

    def step(
        self, weights: list[Array], tokens: Int[Array, "B 1"], cache: list[Array]
    ) -> tuple[Float[Array, "B 1 V"], list[Array]]:
        """The logits of what follows one more token of each row, and the cache with it."""
        read = jax.tree.unflatten(self._cache_structure, cache)
        logits, read, _ = apply(self._model, self._params(weights), tokens, read, method="step")
        return logits, jax.tree.leaves(read)

    def _params(self, weights: list[Array]) -> Parameters:
        params: Parameters = jax.tree.unflatten(self._structure, weights)
        return params
