"""A checkpoint of NLLB-200's 600M form, of random weights: seconds and memory of opening it, beside its files.

    python benchmarks/loading.py [--layers 12 --words 256206]

Every way is taken in a process of its own: reading the bytes of the files; `read_checkpoint` in float32, in bfloat16,
and on eight simulated devices, of which each gets a part. Memory is the most that a process held at once, its own
(anonymous) and with the pages of files that it maps.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

WAYS = {
    "bytes of the files": "",
    "float32": "float32",
    "bfloat16": "bfloat16",
    "float32, 8 devices": "float32 8",
}


def fields_of(layers: int, words: int) -> dict[str, object]:
    """config.json of NLLB-200-distilled-600M, by its published sizes."""
    sides = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes(layers).items()}
    return {"model_type": "m2m_100", "d_model": 1024, "vocab_size": words, "max_position_embeddings": 1024, **sides}


def sizes(layers: int) -> dict[str, int]:
    """Of each side."""
    return {"layers": layers, "attention_heads": 16, "ffn_dim": 4096}


def write(folder: Path, layers: int, words: int) -> None:
    """The checkpoint."""
    import jax

    from transformer_jax.initialisation import init_parameters
    from transformer_jax.pretrained import FAMILIES, Checkpoint, write_checkpoint
    from transformer_jax.pretrained.settings import Settings

    fields = fields_of(layers, words)
    config = FAMILIES["m2m_100"].config(Settings(fields), False)
    before = held()["peak"]
    params = jax.block_until_ready(init_parameters(config, jax.random.key(0)))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    started = time.perf_counter()
    write_checkpoint(folder, Checkpoint("m2m_100", config, params, fields))
    told = {"seconds": time.perf_counter() - started, "peak": held()["peak"] - before, "parameters": size}
    print(json.dumps({"writing": told}), flush=True)


def held() -> dict[str, int]:
    """Bytes that this process holds: now, of its own, and at most."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    anonymous = int(status["RssAnon"].split()[0]) * 1024
    return {"anonymous": anonymous, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def watched(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of a call, and the memory that it took beyond what was there."""
    most, done, before = [0], threading.Event(), held()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], held()["anonymous"])

    thread = threading.Thread(target=watch)
    thread.start()
    started, cpu = time.perf_counter(), time.process_time()
    kept = function()  # what it returns is held until memory has been measured
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    most[0] = max(most[0], held()["anonymous"])
    done.set()
    thread.join()
    del kept
    after = held()
    return {
        "seconds": seconds,
        "cpu": cpu,
        "anonymous": most[0] - before["anonymous"],
        "with files": after["peak"] - before["peak"],
    }


def read(folder: Path, way: str) -> None:
    """One way, in this process."""
    import jax

    dtype, _, devices = way.partition(" ")
    if devices:
        jax.config.update("jax_num_cpu_devices", int(devices))
    jax.devices()
    from transformer_jax.config import MeshConfig
    from transformer_jax.pretrained import read_checkpoint
    from transformer_jax.sharding import make_mesh

    if not dtype:
        print(json.dumps(watched(lambda: [len(path.read_bytes()) for path in sorted(folder.glob("*.safetensors"))])))
        return
    mesh = make_mesh(MeshConfig(data=1, fsdp=int(devices))) if devices else None
    print(json.dumps(watched(lambda: jax.block_until_ready(read_checkpoint(folder, mesh, dtype).params))))


def main() -> None:
    """All ways, the best of three each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--words", type=int, default=256_206)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is not None:
        if arguments.way == "write":
            write(arguments.folder, arguments.layers, arguments.words)
        else:
            read(arguments.folder, WAYS[arguments.way])
        return
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, "--folder", name]
        command += ["--layers", str(arguments.layers), "--words", str(arguments.words), "--way"]
        written = json.loads(subprocess.check_output([*command, "write"], text=True))["writing"]
        size = sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
        print(f"{size / 1e9:.2f} GB in {len(list(Path(name).glob('*.safetensors')))} files, {os.cpu_count()} cores")
        print(f"{'':22}{'seconds':>9}{'CPU s':>8}{'own memory':>12}{'with files':>12}   of the size")
        found = {}
        for way in WAYS:
            runs = [json.loads(subprocess.check_output([*command, way], text=True)) for _ in range(3)]
            found[way] = best = min(runs, key=lambda run: run["seconds"])
            shares = [f"{best[kind] / size:12.2f}" for kind in ("anonymous", "with files")]
            print(f"{way:22}{best['seconds']:9.2f}{best['cpu']:8.2f}{''.join(shares)}")
        print(f"{'writing':22}{written['seconds']:9.2f}{'':8}{'':12}{written['peak'] / size:12.2f}   with parameters")
        print(json.dumps({"size": size, "writing": written, **found}))


if __name__ == "__main__":
    main()
