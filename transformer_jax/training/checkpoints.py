"""Checkpoints: the only module that touches Orbax. What is read back is what was written, or it is not used.

A checkpoint holds separate items, each a tree of arrays ("parameters", "optimizer", ...), a position (JSON: where the
run stands), the metrics measured at its step, and a manifest: format version, and dtype, shape and fingerprint of
every leaf, digest of the position. Orbax itself restores flipped bits without a word; the fingerprints find them.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import Array, Shaped, UInt32

from transformer_jax.errors import InputError
from transformer_jax.hashing import scramble

FORMAT_VERSION = 1

Items: TypeAlias = dict[str, Any]  # name of an item -> tree of arrays
Manifest: TypeAlias = dict[str, dict[str, list[Any]]]  # item -> path of a leaf -> [dtype, shape, fingerprint]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Restored:
    """An intact checkpoint."""

    step: int
    items: Items
    position: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run folder: written in the background, the newest and the best kept. A context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        newest: int | None = None,
        best: int = 0,
        score: Callable[[Mapping[str, float]], float] | None = None,
    ) -> None:
        """Keeps the `newest` (all where None) and, by the highest `score` of their metrics, the `best` of them."""
        self.folder = folder
        kept: list[ocp.checkpoint_managers.PreservationPolicy] = [ocp.checkpoint_managers.LatestN(newest)]
        if best and score is not None:
            kept.append(
                ocp.checkpoint_managers.BestN(get_metric_fn=score, n=best, keep_checkpoints_without_metrics=False)
            )
        options = ocp.CheckpointManagerOptions(
            create=False,
            best_fn=score,  # without it the metrics would not be written
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(kept),
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),  # every save that is asked for
        )
        folder.mkdir(parents=True, exist_ok=True)
        _drop_damaged_metrics(folder)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """The steps at which a complete checkpoint lies, oldest first."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the highest score; None where nothing was measured."""
        best: int | None = self._manager.best_step()
        return best if best is not None and self.metrics(best) is not None else None

    def metrics(self, step: int) -> dict[str, float] | None:
        """What was measured at a step; None where nothing was."""
        measured: dict[str, float] | None = self._manager.metrics(step)
        return measured

    def save(
        self, step: int, items: Items, position: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> float:
        """Starts to write a checkpoint; returns as soon as the arrays may change again, with the seconds it took.

        Raises:
            InputError: when this save, or the one before it, could not be written; what was there is intact.
        """
        began = time.monotonic()
        manifest = {
            "format_version": FORMAT_VERSION,
            "leaves": describe(items),
            "position": _digest(position),
        }
        arguments = ocp.args.Composite(
            position=ocp.args.JsonSave(dict(position)),
            manifest=ocp.args.JsonSave(manifest),
            **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
        )
        try:
            self._manager.save(step, args=arguments, metrics=None if metrics is None else dict(metrics), force=True)
        except Exception as error:  # Orbax raises whatever its storage raised
            raise self._failed(error) from error
        return time.monotonic() - began

    def discard_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps: the damaged ones that a run which goes on from `step` makes again."""
        for later in self.steps():
            if later > step:
                self._manager.delete(later)

    def wait(self) -> None:
        """Returns when all that was saved is on disk.

        Raises:
            InputError: when it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> InputError:
        return InputError(
            f"{self.folder}: the newest checkpoint could not be saved: {_line(error)}; older ones are intact: "
            "make room or mend the folder, then run the same command again"
        )

    def restore(self, abstract: Items, steps: Sequence[int] | None = None) -> Restored | None:
        """The first intact checkpoint of `steps`, newest first where None, or None if there is none at all.

        Damaged ones are skipped with a warning.

        Args:
            abstract: the items to read, as shapes, dtypes and shardings.
            steps: which to try, in this order.

        Raises:
            InputError: when a checkpoint is of another model or format, or when all of them are damaged.
        """
        steps = self.steps()[::-1] if steps is None else steps
        for step in steps:
            try:
                return self._read(step, abstract)
            except InputError:
                raise
            except Exception as error:  # damage shows as any exception: see the tests
                _log.warning("%s: checkpoint %d is damaged and skipped: %s", self.folder, step, _line(error))
        if steps:
            raise InputError(f"{self.folder}: no intact checkpoint among {list(steps)}; put back a copy of one")
        return None

    def read_manifest(self, step: int) -> dict[str, Any]:
        """Format version, and item -> leaf -> [dtype, shape, fingerprint]."""
        restored = self._manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
        manifest: dict[str, Any] = restored["manifest"]
        return manifest

    def _read(self, step: int, abstract: Items) -> Restored:
        manifest = self.read_manifest(step)
        if manifest["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{self.folder}/{step}: format {manifest['format_version']}; this version reads {FORMAT_VERSION}"
            )
        self._check_shapes(step, abstract, manifest["leaves"])
        arguments = ocp.args.Composite(
            position=ocp.args.JsonRestore(),
            **{name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()},
        )
        restored = self._manager.restore(step, args=arguments)
        items = {name: restored[name] for name in abstract}
        for name, leaves in describe(items).items():
            for path, found in leaves.items():
                if found != manifest["leaves"][name][path]:
                    raise ValueError(f"{name}{path} is not what was saved")
        if _digest(restored["position"]) != manifest["position"]:
            raise ValueError("the position is not what was saved")
        return Restored(step, items, restored["position"])

    def _check_shapes(self, step: int, abstract: Items, leaves: Manifest) -> None:
        for name, tree in abstract.items():
            if name not in leaves:
                raise InputError(f"{self.folder}/{step}: holds no {name}, only {', '.join(leaves)}")
            expected = {path: [str(leaf.dtype), list(leaf.shape)] for path, leaf in _leaves(tree).items()}
            found = {path: saved[:2] for path, saved in leaves[name].items()}
            for path in [*expected, *found]:
                if expected.get(path) != found.get(path):
                    raise InputError(
                        f"{self.folder}/{step}: {name}{path} is {found.get(path)}, "
                        f"but the experiment has {expected.get(path)}"
                    )


def _drop_damaged_metrics(folder: Path) -> None:
    """A checkpoint without metrics is one that is not the best; with broken ones, Orbax would open none at all."""
    for file in sorted(folder.glob("*/metrics/metrics")):
        if not file.parts[-3].isdigit():  # half written by a save that goes on
            continue
        try:
            json.loads(file.read_bytes())
        except ValueError as error:
            _log.warning("%s is damaged and removed: %s", file, _line(error))
            file.unlink()


def describe(items: Items) -> Manifest:
    """Dtype, shape and fingerprint of every leaf of every item."""
    prints = jax.device_get(_fingerprints(items))
    return {
        name: {
            path: [str(leaf.dtype), list(leaf.shape), f"{int(high):08x}{int(low):08x}"]
            for (path, leaf), (high, low) in zip(_leaves(tree).items(), _leaves(prints[name]).values(), strict=True)
        }
        for name, tree in items.items()
    }


@jax.jit
def _fingerprints(items: Items) -> Items:
    return jax.tree.map(fingerprint, items)


def fingerprint(x: Shaped[Array, "*shape"]) -> UInt32[Array, "2"]:
    """64 bits of an array that change with any of its bits and with any exchange of elements.

    A sum over elements of a hash of value and place: the same however the array is sharded, since integer sums do not
    depend on their order, and computed where the shards lie.
    """
    width = x.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16}.get(width, jnp.uint32))
    words = bits.reshape(-1).astype(jnp.uint32)
    place = scramble(jax.lax.iota(jnp.uint32, words.size) + jnp.uint32(0x9E3779B9))
    low = scramble(words ^ place)
    return jnp.stack([scramble(low + place).sum(dtype=jnp.uint32), low.sum(dtype=jnp.uint32)])


def _digest(position: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(position, sort_keys=True).encode()).hexdigest()


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
