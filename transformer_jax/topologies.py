"""Devices that this machine does not have: simulated ones, and TPUs as their compiler knows them."""

import importlib.util
import os

import jax

from transformer_jax.errors import InputError

# GiB that the TPU compiler gives to a program on one device; the rest of 16, 32 and 95 GiB it keeps for itself.
_MEMORY = {"v4": 30.75, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25}

# Without these, libtpu looks for the TPU host that it runs on, at length, lets in one process of a machine only, and
# keeps the compiler's warnings to itself, such as that of a tensor that is rematerialised whole on every device.
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "1",
}


def simulated(count: int) -> list[jax.Device]:
    """CPU devices that share this machine's processor; before anything else has run on jax in this process.

    Raises:
        InputError: where jax has started with fewer.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # jax has started; it may have enough of them
        pass
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise InputError(f"{count} simulated devices: jax has started with {len(devices)}; ask in a new process")
    return devices[:count]


def tpus(topology: str) -> list[jax.Device]:
    """The devices of a TPU topology, such as "v5e:2x4"; programs compile for them, but do not run.

    Raises:
        InputError: where the TPU compiler is not installed, or does not know the topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f'--topology {topology}: needs the TPU compiler; the tpu extra has it: pip install ".[tpu]"')
    os.environ.update({name: value for name, value in _LIBTPU.items() if name not in os.environ})
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}  # jax sees a chip as one device
    try:
        return list(topologies.get_topology_desc(topology, "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--topology {topology}: no such TPU ({reason}); such as v4:2x2x2, v5e:2x4, v5p:4x4x4, v6e:16x16"
        ) from None


def memory(topology: str) -> int | None:
    """Bytes for a program on one device of a TPU topology; None where that is not known."""
    gibibytes = _MEMORY.get(topology.partition(":")[0])
    return None if gibibytes is None else int(gibibytes * 2**30)
