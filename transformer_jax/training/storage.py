"""Trees of arrays in files: the only module that touches Orbax.

Nothing is checked here: Orbax restores flipped bits without a word.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from transformer_jax.training.fingerprints import Items


class Storage:
    """Writes items in the background, one set of them at a time, and reads them onto any devices."""

    def __init__(self) -> None:
        self._orbax = _orbax()

    def start_writing(self, folder: Path, items: Items) -> None:
        """Returns as soon as the arrays may change; the folder is made, and replaced if need be.

        Raises whatever Orbax raises.
        """
        trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._orbax.save(folder.absolute(), args=ocp.args.Composite(**trees), force=True)

    def finish_writing(self) -> None:
        """Returns when all files are there. Raises whatever Orbax raises, that of its storage among it."""
        self._orbax.wait_until_finished()

    def read(self, folder: Path, abstract: Items) -> Items:
        """The items that are asked for, with the dtypes and shardings that are asked for.

        Raises whatever Orbax raises, a bare Exception among it, where files are damaged.
        """
        trees = {name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()}
        read = self._orbax.restore(folder.absolute(), args=ocp.args.Composite(**trees))
        return {name: read[name] for name in abstract}

    def on_one_device(self, folder: Path, names: Iterable[str]) -> Items:
        """What to ask for, to have items on the first device here, wherever they were saved; without their classes."""
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def asked(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
            return {name: jax.tree.map(asked, handler.metadata(folder.absolute() / name).tree) for name in names}

    def start_anew(self) -> None:
        """After a failure: the old Orbax may still wait for what will not come."""
        self.close()
        self._orbax = _orbax()

    def close(self) -> None:
        """Ends what is going on; what that raises belongs to `finish_writing`."""
        with contextlib.suppress(Exception):
            self._orbax.close()


def _orbax() -> ocp.AsyncCheckpointer:
    # Directories are made before `save` returns: where one cannot be, Orbax's threads would wait for it for minutes.
    options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
    return ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(), async_options=options)
