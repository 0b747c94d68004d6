"""Whether trained weights translate alike everywhere: `python -m benchmarks.agreement RUN [--lines 200]`.

The run's test sentences, with real ends, by our greedy search and beam of 4, and with the same weights by Hugging
Face's Marian and CTranslate2 in float32: the share of outputs that are ours to the last id, and how far
log-probabilities of those are apart. The run has Marian's form; such a one is trained by

    transformer-jax train experiments/numerals.py --workdir RUN --model.norm post --model.positions halves \\
        --model.norm-epsilon 1e-5

Needs the extra "bench".
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import timing
from benchmarks.base import EOS
from benchmarks.decode import BEAMS
from benchmarks.peers import ctranslate2_model, ctranslate2_translator, marian
from transformer_jax import ModelConfig, Transformer, sharding
from transformer_jax.data.sources import load_pairs
from transformer_jax.decoding import BeamSearch, Greedy
from transformer_jax.inference import decoding_parameters, start_cache, step_model
from transformer_jax.models import Parameters
from transformer_jax.runs import RunFolder, open_run
from transformer_jax.translation import load_tokenizers, read_parameters

LONGEST = 64  # tokens of an output
Outputs = list[tuple[list[int], float]]  # ids up to the end, and their log-probability


def ours(config: ModelConfig, params: Parameters, sources: np.ndarray, beam: int) -> Outputs:
    """Our outputs."""
    model, batch = Transformer(config), len(sources)
    strategy = Greedy() if beam == 1 else BeamSearch(beam, length_penalty=0.0)

    @jax.jit
    def decode(params: Parameters, sources: jax.Array) -> Any:
        cache = start_cache(model, params, sources, rows=batch * strategy.rows, beams=strategy.beams, capacity=LONGEST)
        return strategy.search(step_model(model, params, EOS), cache, jnp.full(batch, LONGEST), max_length=LONGEST)

    found = jax.device_get(decode(decoding_parameters(params), sources))
    return [
        (found.tokens[row, 0, : found.lengths[row, 0]].tolist(), float(found.log_probs[row, 0])) for row in range(batch)
    ]


def hugging_face(config: ModelConfig, params: Parameters, sources: np.ndarray, beam: int) -> Outputs:
    """Those of Marian's generate."""
    tokens = torch.tensor(sources).long()
    with torch.no_grad():
        output = (
            marian(config, params)
            .eval()
            .generate(
                input_ids=tokens,
                attention_mask=(tokens != config.pad_id).long(),
                num_beams=beam,
                do_sample=False,
                max_new_tokens=LONGEST,
                length_penalty=0.0,
                early_stopping=False,
                bad_words_ids=[[config.pad_id]],
                output_scores=True,
                return_dict_in_generate=True,
            )
        )
    scores = [float("nan")] * len(sources) if beam == 1 else output.sequences_scores.tolist()
    return [(_until_the_end(row), score) for row, score in zip(output.sequences[:, 1:].tolist(), scores, strict=True)]


def _until_the_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


def ctranslate2(config: ModelConfig, params: Parameters, sources: np.ndarray, beam: int) -> Outputs:
    """Those of CTranslate2, which tells ids without the end, and its log-probability with it."""
    with tempfile.TemporaryDirectory() as folder:
        translator = ctranslate2_translator(
            ctranslate2_model(config, params, Path(folder) / "model"), "float32", timing.all_cores()
        )
    lines = [["</s>" if token == EOS else str(token) for token in row if token] for row in sources.tolist()]
    results = translator.translate_batch(
        lines,
        beam_size=beam,
        max_decoding_length=LONGEST,
        length_penalty=0.0,
        return_scores=True,
        suppress_sequences=[["<pad>"]],
    )
    return [([*map(int, result.hypotheses[0]), EOS], result.scores[0]) for result in results]


def rows_of(run: Path, count: int) -> Iterator[dict[str, Any]]:
    """The table."""
    experiment, folder = open_run(run), RunFolder(run)
    pairs = load_pairs(experiment.data, "test")
    assert pairs is not None
    mesh = sharding.make_mesh(sharding.ONE_DEVICE, jax.devices()[:1])
    params = jax.tree.map(np.array, read_parameters(folder, experiment, mesh)[0])
    params["embedding"]["table"][experiment.model.pad_id] = 0.0  # as it counts with us; the peers read the row
    ids = [[*line, EOS] for line in load_tokenizers(folder).source.encode(pairs.sources[:count])]
    sources = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, line in zip(sources, ids, strict=True):
        row[: len(line)] = line
    peers: dict[str, Callable[..., Outputs]] = {"Hugging Face": hugging_face, "CTranslate2": ctranslate2}
    for search, beam in BEAMS.items():
        expected = ours(experiment.model, params, sources, beam)
        for name, translate in peers.items():
            found = translate(experiment.model, params, sources, beam)
            same = [(one, other) for one, other in zip(found, expected, strict=True) if one[0] == other[0]]
            apart = [abs(score - other) for (_, score), (_, other) in same]
            yield {
                "search": search,
                "system": name,
                "outputs": len(expected),
                "the same": len(same) / len(expected),
                "log-probabilities apart": None if np.isnan(apart).any() else max(apart, default=None),
            }


def main() -> None:
    """Compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--lines", type=int, default=200)
    options = parser.parse_args()
    rows = list(rows_of(options.run, options.lines))
    timing.report("The same weights, the same outputs", rows, "torch", "transformers", "ctranslate2")


if __name__ == "__main__":
    main()
