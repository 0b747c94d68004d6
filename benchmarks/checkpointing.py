"""What a run loses to its checkpoints: `python -m benchmarks.checkpointing [--layers 50] [--steps 6] [--folder DIR]`.

A step of Adam on `layers` matrices of 1,024 x 1,024, again and again; behind one of them a checkpoint is saved while
the next ones run. Once with Orbax alone, once as runs do it: with fingerprints of all leaves and digests of all files.
Prints a table, and the same as one line of JSON. Sits on one device.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.training.checkpoints import Checkpoints
from transformer_jax.training.fingerprints import Items, describe
from transformer_jax.training.manifest import digest_files
from transformer_jax.training.storage import Storage

WIDTH = 1024
ROWS = 64  # of the batch


def make_step(layers: int) -> tuple[Items, Callable[[Items], Items]]:
    """Parameters with the state of Adam, and a jitted step that changes them in place."""
    optimizer = optax.adam(1e-3)
    batch = jax.random.normal(jax.random.key(0), (ROWS, WIDTH))

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        x = batch
        for kernel in params.values():
            x = jnp.tanh(x @ kernel)
        return jnp.square(x).mean()

    def step(items: Items) -> Items:
        updates, state = optimizer.update(jax.grad(loss)(items["parameters"]), items["optimizer"])
        return {"parameters": optax.apply_updates(items["parameters"], updates), "optimizer": state}

    keys = jax.random.split(jax.random.key(1), layers)
    params = {f"{index:03}": jax.random.normal(key, (WIDTH, WIDTH)) * WIDTH**-0.5 for index, key in enumerate(keys)}
    return {"parameters": params, "optimizer": optimizer.init(params)}, jax.jit(step, donate_argnums=0)


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """How long a call takes, its result included."""
    began = time.monotonic()
    jax.block_until_ready(function(*arguments))
    return time.monotonic() - began


class Loop:
    """Steps, each waited for."""

    def __init__(self, layers: int, steps: int) -> None:
        self.items, self._step = make_step(layers)
        self._steps = steps
        self.run()
        self.alone = statistics.median(self.run())

    def run(self) -> list[float]:
        """The seconds of each step."""
        return [seconds(self._advance) for _ in range(self._steps)]

    def _advance(self) -> Items:
        self.items = self._step(self.items)
        return self.items

    def beside(self, save: Callable[[], None], wait: Callable[[], None]) -> dict[str, float]:
        """What a save costs: the seconds it holds up its caller, those until it is on disk, and all that steps lose."""
        began = time.monotonic()
        save()
        held_up = time.monotonic() - began
        saved: list[float] = []

        def watch() -> None:
            wait()
            saved.append(time.monotonic() - began)

        watcher = threading.Thread(target=watch)
        watcher.start()
        lost = held_up
        while watcher.is_alive():
            lost += seconds(self._advance) - self.alone
        watcher.join()
        return {"held_up": held_up, "on_disk": saved[0], "lost": lost}


def measure(layers: int, steps: int, folder: Path) -> dict[str, float]:
    """Seconds, by what they are of."""
    loop = Loop(layers, steps)
    storage = Storage()
    results = {"step": loop.alone}
    for number in range(2):  # the first warms up
        place = folder / f"orbax-{number}"
        bare = loop.beside(lambda place=place: storage.start_writing(place, loop.items), storage.finish_writing)
        results["digests"] = seconds(digest_files, place)
    storage.close()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        for number in range(2):
            whole = loop.beside(lambda step=number: checkpoints.save(step, loop.items, {}), checkpoints.wait)
    describe(loop.items)
    results["fingerprints"] = seconds(describe, loop.items)
    results |= {f"orbax_{name}": value for name, value in bare.items()}
    return results | {f"checkpoint_{name}": value for name, value in whole.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = measure(arguments.layers, arguments.steps, Path(folder))
    megabytes = arguments.layers * WIDTH * WIDTH * 12 / 1e6
    print(f"{megabytes:.0f} MB on {jax.devices()[0].device_kind}, seconds")
    for name, value in results.items():
        print(f"{name:20} {value:8.3f}")
    print(json.dumps({"benchmark": "checkpointing", "megabytes": round(megabytes), **results}))


if __name__ == "__main__":
    main()
