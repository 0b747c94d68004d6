"""Decoding beside its peers: `python -m benchmarks.decode [--batches 1 16 64] [--lengths 32] [--rounds 5]`.

The paper's base size over 8,000 pieces; sources of so many tokens and outputs of exactly as many, the encoder included,
by greedy search and a beam of 4. Ours in float32 and with bfloat16 weights, Hugging Face's Marian, CTranslate2 in
float32 and int8, all with the same weights: first they must give the same log-probabilities, and greedy search the same
ids, up to choices that are too close to call. Then each in turn: CPU seconds on one core, wall seconds on all of them;
CTranslate2 has the better of all cores for one batch and one core for each of several parts. Random weights cost as
much as others; `benchmarks.agreement` compares with trained ones. `--ours` leaves the peers out.

The peers need the extra "bench".
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.base import BASE, parameters
from transformer_jax import ModelConfig, Transformer
from transformer_jax.decoding import BeamSearch, Greedy
from transformer_jax.inference import decoding_parameters, start_cache, step_model
from transformer_jax.models import Parameters

MODULE = "benchmarks.decode"
OURS = ("ours float32", "ours bfloat16")
SYSTEMS = (*OURS, "Hugging Face", "CTranslate2 float32", "CTranslate2 int8")
BEAMS = {"greedy": 1, "beam 4": 4}
CLOSE = 1e-3  # relative, of log-probabilities: to CTranslate2, an end that may not come has no share of the rest
Run = Callable[[], tuple[np.ndarray, np.ndarray]]  # ids of the outputs, and their log-probabilities


def sources(batch: int, length: int, vocab_size: int = BASE.vocab_size) -> np.ndarray:
    """Random ids without padding or ends."""
    return np.random.default_rng(1).integers(2, vocab_size, (batch, length), np.int32)


def ours(config: ModelConfig, dtype: str, params: Parameters, source: np.ndarray, beam: int) -> Run:
    """Our decoding, compiled."""
    model, (batch, length) = Transformer(replace(config, dtype=dtype)), source.shape
    strategy = Greedy() if beam == 1 else BeamSearch(beam, length_penalty=0.0)
    params = jax.jit(decoding_parameters, static_argnums=1)(params, dtype)
    limits = jnp.full(batch, length)

    @jax.jit
    def decode(params: Parameters, source: jax.Array) -> Any:
        cache = start_cache(model, params, source, rows=batch * strategy.rows, beams=strategy.beams, capacity=length)
        endless = step_model(model, params, eos_id=-1)  # no token ends an output
        return strategy.search(endless, cache, limits, max_length=length)

    def run() -> tuple[np.ndarray, np.ndarray]:
        hypotheses = jax.device_get(decode(params, source))
        return hypotheses.tokens[:, 0], hypotheses.log_probs[:, 0]

    return run


def hugging_face(
    config: ModelConfig, params: Parameters, source: np.ndarray, beam: int, device: str = "cpu", dtype: str = "float32"
) -> Run:
    """Marian's generate; it may not end before the last token, nor emit padding."""
    import torch

    from benchmarks.peers import marian

    torch.set_num_threads(timing.all_cores())
    model = marian(config, params).eval().to(device, getattr(torch, dtype))
    tokens, length = torch.tensor(source, device=device).long(), source.shape[1]

    def run() -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            output = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                num_beams=beam,
                do_sample=False,
                min_new_tokens=length,
                max_new_tokens=length,
                length_penalty=0.0,
                bad_words_ids=[[config.pad_id]],
                output_scores=beam > 1,
                return_dict_in_generate=True,
            )
        scores = np.full(len(source), np.nan) if beam == 1 else output.sequences_scores.cpu().numpy()
        return output.sequences[:, 1:].cpu().numpy(), scores

    return run


def ctranslate2(compute: str, params: Parameters, source: np.ndarray, beam: int, parallel: int) -> Run:
    """CTranslate2, which reads a folder."""
    from benchmarks.peers import ctranslate2_model, ctranslate2_translator

    with tempfile.TemporaryDirectory() as folder:
        path = ctranslate2_model(BASE, params, Path(folder) / "model")
        translator = ctranslate2_translator(path, compute, timing.all_cores(), parallel)
    lines, length = [[str(token) for token in row] for row in source.tolist()], source.shape[1]
    part = -(-len(lines) // parallel)

    def run() -> tuple[np.ndarray, np.ndarray]:
        results = translator.translate_batch(
            lines,
            beam_size=beam,
            max_batch_size=part,
            max_decoding_length=length,
            min_decoding_length=length,
            length_penalty=0.0,
            return_scores=True,
            suppress_sequences=[["<pad>"]],
        )
        ids = np.array([[int(token) for token in result.hypotheses[0]] for result in results])
        return ids, np.array([result.scores[0] for result in results])

    return run


def build(name: str, params: Parameters, source: np.ndarray, beam: int) -> dict[str, Run]:
    """The system, or two settings of it."""
    if name in OURS:
        return {name: ours(BASE, name.split()[1], params, source, beam)}
    if name == "Hugging Face":
        return {name: hugging_face(BASE, params, source, beam)}
    cores = timing.all_cores()
    return {
        f"{name}|{parallel}": ctranslate2(name.split()[1], params, source, beam, parallel)
        for parallel in {1, cores}
        if parallel <= len(source)
    }


def check(outputs: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Float32 systems give the same ids as ours, or others whose log-probability is as high."""
    if OURS[0] not in outputs:
        return
    ids, scores = outputs[OURS[0]]
    for name, (their_ids, their_scores) in outputs.items():
        if "bfloat16" in name or "int8" in name:
            continue
        same = (ids == their_ids).all(axis=1)
        differing = np.abs(np.where(np.isnan(their_scores), scores, their_scores) - scores)
        assert same.mean() >= 0.9, f"{name}: only {same.mean():.0%} of the outputs are ours"
        assert (differing[same] < CLOSE * np.abs(scores[same])).all(), f"{name}: {differing[same].max()} nats apart"
        # Where two choices were as good, what follows is another output, of about as much probability.
        assert (differing[~same] < 0.05 * np.abs(scores[~same])).all(), f"{name}: another output, and not as good"


def measure(options: argparse.Namespace) -> Any:
    """In a process of its own: the times of all systems at one batch size, length and beam."""
    batch, length, beam = options.batches[0], options.lengths[0], options.beams[0]
    params, source = parameters(), sources(batch, length)
    runs: dict[str, Run] = {}
    for name in options.systems:
        runs |= build(name, params, source, BEAMS[beam])
    check({name: run() for name, run in runs.items()})
    return timing.in_turn(runs, options.rounds)


def best(times: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    """The times of a system, by the setting of it that has the least wall time."""
    settings = [value for key, value in times.items() if key.partition("|")[0] == name]
    return min(settings, key=lambda value: value["wall_median"])


def rows_of(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The table."""
    for length, batch, beam in itertools.product(options.lengths, options.batches, options.beams):
        chosen = ["--lengths", length, "--batches", batch, "--beams", beam, "--systems", *options.systems]
        arguments = ["--child", "--rounds", options.rounds, *chosen]
        one = timing.child(MODULE, arguments, cores=1)
        whole = timing.child(MODULE, arguments) if options.wall else one
        for name in options.systems:
            times = best(one, name)
            yield {
                "tokens": length,
                "batch": batch,
                "search": beam,
                "system": name,
                "CPU s": times["cpu_median"],
                "min": times["cpu_min"],
                "times ours": times["cpu_median"] / best(one, options.systems[0])["cpu_median"],
                "wall s": best(whole, name)["wall_median"] if options.wall else None,
            }


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64], help="sentences at once")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32], help="tokens of every source and every output")
    parser.add_argument("--beams", nargs="+", default=list(BEAMS), choices=list(BEAMS))
    parser.add_argument("--rounds", type=int, default=5, help="times that every system is timed")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--ours", dest="systems", action="store_const", const=list(OURS), help="leave the peers out")
    parser.add_argument("--wall", action=argparse.BooleanOptionalAction, default=True, help="also on all cores")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    options = parse()
    if options.child:
        print(json.dumps(measure(options)))
        return
    timing.report("Decoding", list(rows_of(options)), "torch", "transformers", "ctranslate2")


if __name__ == "__main__":
    main()
