"""From the pairs of a split to its examples and batches."""

from pathlib import Path

from jax.sharding import Mesh

from transformer_jax.config import BatchConfig, Classification, ObjectiveConfig, Translation
from transformer_jax.data.corpus import Corpus, PairCorpus, TextCorpus
from transformer_jax.data.examples import TokenStore
from transformer_jax.data.laps import laps_of
from transformer_jax.data.objectives import Limits, Objective, objective_of
from transformer_jax.data.pipeline import Pipeline
from transformer_jax.data.sampled import SampledCorpus
from transformer_jax.data.shards import Shards
from transformer_jax.data.sources import Pairs
from transformer_jax.data.tokenizer import Tokenizers
from transformer_jax.data.tokens import labelled, tokenise


def examples_of(
    pairs: Pairs,
    config: ObjectiveConfig,
    tokenizers: Tokenizers,
    batch: BatchConfig,
    seed: int,
    cache_dir: Path,
    sampling: float = 0.0,
) -> Corpus:
    """The examples of pairs or plain texts, tokenised.

    Args:
        pairs: of one split.
        config: the objective.
        tokenizers: of both sides.
        batch: the shape of a batch, in whose rows examples have to fit.
        seed: of what is drawn.
        cache_dir: folder for the tokenised texts, made if need be; found again by their content.
        sampling: how much of the pieces of pairs is drawn; plain texts keep theirs.

    Raises:
        InputError: where the data does not fit the objective, and where nothing is left.
    """
    limits = batch.source_length, batch.target_length
    objective = objective_of(config, tokenizers, limits, plain=pairs.sources is None)
    if isinstance(config, Classification):
        tokens = labelled(pairs, config.labels, tokenizers, batch.source_length, cache_dir)
    else:
        tokens = tokenise(pairs, tokenizers, cache_dir)
    return _corpus(tokens, objective, tokenizers, limits, seed, sampling)


def examples_in(
    shards: Shards,
    config: ObjectiveConfig,
    tokenizers: Tokenizers,
    batch: BatchConfig,
    seed: int,
    sampling: float = 0.0,
) -> Corpus:
    """The examples of token shards; arguments and errors as of `examples_of`."""
    limits = batch.source_length, batch.target_length
    objective = objective_of(config, tokenizers, limits, plain=shards.manifest.plain)
    return _corpus(shards, objective, tokenizers, limits, seed, sampling)


def _corpus(
    tokens: TokenStore, objective: Objective, tokenizers: Tokenizers, limits: Limits, seed: int, sampling: float
) -> Corpus:
    """The corpus of tokenised texts that fits an objective."""
    if objective.longest is not None:
        return TextCorpus(tokens, objective, tokenizers.target.special, limits, seed)
    if sampling:
        return SampledCorpus(tokens, objective, tokenizers, limits, sampling, seed)
    return PairCorpus(tokens, objective, tokenizers, limits)


def batches_of(
    pairs: Pairs,
    tokenizers: Tokenizers,
    batch: BatchConfig,
    mesh: Mesh,
    seed: int,
    cache_dir: Path,
    objective: ObjectiveConfig = Translation(),  # noqa: B008  # frozen
) -> Pipeline:
    """The batches of one split alone; arguments and errors as of `examples_of` and `Pipeline`."""
    corpus = examples_of(pairs, objective, tokenizers, batch, seed, cache_dir)
    return Pipeline(laps_of([corpus], [1.0], seed), tokenizers.target.special, batch, mesh, seed)
