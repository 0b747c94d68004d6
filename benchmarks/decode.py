"""How fast translations are decoded: `python benchmarks/decode.py [--batches 1 16 64] [--rounds 5] [--one-core]`.

Sources of 32 tokens, outputs of exactly 32, by greedy search and a beam of 4, the encoder included, with weights of the
paper's base size over 8,000 pieces that are random: a step takes as long whatever they are. All settings are timed in
turn, as often as there are rounds. Prints medians as a table, and the same as one line of JSON.
"""

import argparse
import json
import os
import platform
import statistics
import time
from typing import Any

LENGTH = 32  # tokens of every source and every output
BASE = {"vocab_size": 8_000, "width": 512, "num_heads": 8, "ffn_width": 2_048, "encoder_layers": 6, "decoder_layers": 6}


def parse() -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64], help="sentences at once")
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of every source and every output")
    parser.add_argument("--rounds", type=int, default=5, help="times that every setting is timed")
    parser.add_argument("--one-core", action="store_true", help="stay on one core of a CPU")
    return parser.parse_args()


def setting(strategy: Any, batch: int, length: int) -> Any:
    """A function that decodes a batch of random sentences, compiled."""
    import jax
    import jax.numpy as jnp

    from transformer_jax import ModelConfig, Transformer, init_parameters
    from transformer_jax.inference import start_cache, step_model
    from transformer_jax.models import decoding_parameters

    model = Transformer(ModelConfig(**BASE))
    params = jax.jit(decoding_parameters)(init_parameters(model.config, jax.random.key(0)))
    source = jax.random.randint(jax.random.key(1), (batch, length), 3, model.config.vocab_size)
    limits = jnp.full(batch, length)

    @jax.jit
    def decode(params: Any, source: jax.Array) -> Any:
        cache = start_cache(model, params, source, rows=batch * strategy.rows, capacity=length)
        endless = step_model(model, params, eos_id=-1)  # no token ends an output
        return strategy.search(endless, cache, limits, max_length=length)

    def run() -> None:
        hypotheses = jax.block_until_ready(decode(params, source))
        assert (hypotheses.lengths == length).all()

    run()
    return run


def main() -> None:
    """Times and prints."""
    options = parse()
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before jax counts the cores
    import jax

    from transformer_jax.decoding import BeamSearch, Greedy

    strategies = {"greedy": Greedy(), "beam 4": BeamSearch(4)}
    runs = {
        (batch, name): setting(strategy, batch, options.length)
        for batch in options.batches
        for name, strategy in strategies.items()
    }
    times: dict[Any, list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(options.rounds):
        for key, run in runs.items():
            began, used = time.monotonic(), time.process_time()
            run()
            times[key].append((time.monotonic() - began, time.process_time() - used))
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    print(f"{device.device_kind}, {cores} cores, jax {jax.__version__}, Python {platform.python_version()}")
    print(f"{'batch':>5}  {'search':8}{'tokens/s':>10}{'wall s':>10}{'CPU s':>10}")
    rows = []
    for (batch, name), measured in times.items():
        wall, cpu = (statistics.median(values) for values in zip(*measured, strict=True))
        tokens = batch * options.length / wall
        rows.append({"batch": batch, "search": name, "tokens_per_second": tokens, "wall": wall, "cpu": cpu})
        print(f"{batch:>5}  {name:8}{tokens:>10,.0f}{wall:>10.3f}{cpu:>10.3f}")
    print(json.dumps({"device": device.device_kind, "cores": cores, "length": options.length, "rows": rows}))


if __name__ == "__main__":
    main()
