"""The device mesh, and the one table from logical axis names to its axes."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped

from transformer_jax.config import MeshConfig, ModelConfig
from transformer_jax.errors import InputError

ONE_DEVICE = MeshConfig(data=1)

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")  # the leading axis of every batch array is split over both

# Logical axis of a parameter or an activation -> axis of the mesh. "heads" is all heads, or their channels (H*K).
AXIS_RULES = (
    ("batch", BATCH_AXES),
    ("replica", "data"),  # rows of the batch, not split over the devices that share one copy of the parameters
    ("vocab", "tensor"),
    ("width", "fsdp"),
    ("heads", "tensor"),
    ("channels", None),
    ("ffn", "tensor"),
    ("positions", None),
    ("buckets", None),
    ("types", None),
    ("classes", None),
    ("rank", None),
    ("layers", None),
)


def parameter(
    module: nn.Module, name: str, initialiser: nn.initializers.Initializer, **axes: int
) -> Float[Array, "..."]:
    """A float32 parameter of a module; `axes` are its sizes under their logical names, in order."""
    boxed = nn.with_logical_partitioning(initialiser, tuple(axes))
    return cast(Array, module.param(name, boxed, tuple(axes.values()), jnp.float32))


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) over the given devices, or over all there are.

    Raises:
        InputError: where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    asked = {axis: getattr(config, axis) for axis in MESH_AXES}
    fixed = math.prod(size for size in asked.values() if size > 0)
    sizes = {axis: len(devices) // fixed if size == -1 else size for axis, size in asked.items()}
    if math.prod(sizes.values()) != len(devices):
        flags = " ".join(f"--mesh.{axis} {size}" for axis, size in asked.items())
        raise InputError(f"{flags}: the product must be the number of devices, {len(devices)}; -1 takes what remains")
    names, shape, types = tuple(sizes), tuple(sizes.values()), (AxisType.Auto,) * 3
    try:
        return jax.make_mesh(shape, names, axis_types=types, devices=list(devices))
    except NotImplementedError:  # a TPU of three dimensions: 8 x 8 over 4 x 4 x 4 has to cut one of them
        return Mesh(create_device_mesh(shape, list(devices), allow_split_physical_axes=True), names, axis_types=types)


def data_mesh(count: int = 1) -> Mesh:
    """The mesh of so many devices that share batches, each with all of the model; -1 is all there are.

    Raises:
        InputError: where there are not so many.
    """
    devices = jax.devices()
    if count == 0 or not -1 <= count <= len(devices):
        raise InputError(f"--devices {count}: 1 to {len(devices)}, as many as there are, or -1 for all")
    return make_mesh(MeshConfig(data=-1), devices if count == -1 else devices[:count])


def check_mesh(mesh: Mesh, model: ModelConfig) -> None:
    """Checks that the mesh divides what it splits, by the table above.

    Raises:
        InputError: naming the size and the axis that does not divide it.
    """
    sizes = {
        "num_heads": (model.num_heads, "tensor"),
        "kv_heads": (model.key_value_heads, "tensor"),
        "ffn_width": (model.ffn_width, "tensor"),
        "vocab_size": (model.vocab_size, "tensor"),
        "source_vocab_size": (model.source_vocab_size or model.vocab_size, "tensor"),
        "width": (model.width, "fsdp"),
    }
    for name, (size, axis) in sizes.items():
        if size % mesh.shape[axis]:
            raise InputError(f"--model.{name} {size}: --mesh.{axis} {mesh.shape[axis]} does not divide it")


def batch_shards(mesh: Mesh) -> int:
    """Parts that a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_rows(mesh: Mesh, rows: int) -> None:
    """Checks that the devices can share the rows of a batch evenly.

    Raises:
        InputError: naming the numbers that would be right.
    """
    shards = batch_shards(mesh)
    if rows % shards:
        near = sorted({max(rows // shards, 1) * shards, (rows // shards + 1) * shards})
        raise InputError(
            f"batch.rows={rows}: not a multiple of the {shards} devices that share a batch; "
            f"{' or '.join(map(str, near))} would be"
        )


def shared_rows(mesh: Mesh, rows: int) -> int:
    """The least number of rows, no less than these, that the devices can share evenly."""
    shards = batch_shards(mesh)
    return -(-rows // shards) * shards


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch split over data and fsdp, whole over tensor."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def placed(mesh: Mesh, tree: Any) -> Any:
    """Arrays of the host on the devices, their rows shared among them."""
    place = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, place, x.__getitem__), tree)


def one_a_device(mesh: Mesh) -> NamedSharding:
    """An axis of as many elements as there are devices, one on each."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(abstract_state: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every leaf of an abstract state whose parameters carry logical axis names.

    What an optimizer keeps of a parameter without all of its axes, as factored moments, is whole on every device: it
    is small.
    """

    def is_box(node: Any) -> bool:
        return isinstance(node, nn.LogicallyPartitioned)

    def named(node: Any) -> Any:
        if not is_box(node):
            return node
        if not jax.tree.leaves(node.value):  # of a parameter that a part of the optimizer passes over
            return node.value
        complete = node.value.ndim == len(node.names) and node.value.size > 1
        return node if complete else node.replace(names=(None,) * node.value.ndim)

    named_state = jax.tree.map(named, abstract_state, is_leaf=is_box)
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(named_state), mesh, AXIS_RULES)


def on_mesh(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, to be jitted, with the mesh in the context that `constrain` reads."""

    def traced(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    traced.__name__ = getattr(function, "func", function).__name__  # the program's, in logs and profiles
    return traced


def constrain(x: Shaped[Array, "*shape"], *axes: str | None) -> Shaped[Array, "*shape"]:
    """x, split over the mesh in context by the logical names of its axes; None is an axis that is whole everywhere.

    Without a mesh of ours, or on one device, the identity.
    """
    if math.prod(_sizes().values()) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, _spec(axes))


def by_device(
    function: Callable[..., Any], inputs: Sequence[tuple[str | None, ...]], output: tuple[str | None, ...]
) -> Callable[..., Any]:
    """The function of arrays, run by each device over what it holds of them, by the logical names of their axes.

    Without a mesh of ours, or on one device, the function itself.
    """
    if math.prod(_sizes().values()) == 1:
        return function
    specs = [_spec(axes) for axes in (*inputs, output)]
    return jax.shard_map(function, in_specs=tuple(specs[:-1]), out_specs=specs[-1], check_vma=False)


def is_ours() -> bool:
    """Whether the mesh in context is one of ours."""
    return bool(_sizes())


def pieces(axis: str) -> int:
    """The number of pieces that the mesh in context cuts a logical axis into; 1 without a mesh."""
    axes = dict(AXIS_RULES)[axis]
    return math.prod(_sizes().get(name, 1) for name in ((axes,) if isinstance(axes, str) else axes or ()))


def _spec(axes: Sequence[str | None]) -> PartitionSpec:
    rules = dict(AXIS_RULES)
    return PartitionSpec(*(name and rules[name] for name in axes))


def _sizes() -> dict[str, int]:
    """Devices along each axis of the mesh in context; nothing where it is another's, as within pmap and shard_map."""
    mesh = jax.sharding.get_abstract_mesh()
    ours = mesh.axis_names == MESH_AXES and set(mesh.axis_types) == {AxisType.Auto}
    return dict(mesh.shape) if ours else {}


def describe_devices(mesh: Mesh) -> str:
    """The devices of a mesh in one line, with a warning where a GPU is there that jax does not use."""
    devices = list(mesh.devices.flat)
    kinds = sorted({f"{device.platform} ({device.device_kind})" for device in devices})
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    line = f"{len(devices)} device{'s' if len(devices) > 1 else ''}: {', '.join(kinds)}; mesh {shape}"
    if devices[0].platform == "cpu" and Path("/dev/nvidia0").exists():
        line += "; warning: a GPU is there, but jax does not see it: install the cuda extra"
    return line
