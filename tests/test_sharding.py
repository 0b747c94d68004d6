"""The mesh, where parameters are put, and that their bits do not depend on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from transformer_jax.config import MeshConfig, ModelConfig
from transformer_jax.errors import InputError
from transformer_jax.initialisation import init_parameters
from transformer_jax.sharding import (
    batch_sharding,
    by_device,
    check_mesh,
    check_rows,
    describe_devices,
    make_mesh,
    on_mesh,
    replicated,
)

CONFIG = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=6, num_heads=2, head_width=5, ffn_width=14, vocab_size=22
)


class TestMesh:
    @pytest.mark.parametrize(
        ("config", "shape"),
        [
            (MeshConfig(), (8, 1, 1)),
            (MeshConfig(data=2, fsdp=-1, tensor=2), (2, 2, 2)),
            (MeshConfig(data=1, fsdp=8), (1, 8, 1)),
        ],
        ids=str,
    )
    def test_minus_1_takes_what_remains(self, config, shape):
        mesh = make_mesh(config)
        assert mesh.axis_names == ("data", "fsdp", "tensor")
        assert mesh.devices.shape == shape

    @pytest.mark.parametrize("config", [MeshConfig(data=3), MeshConfig(fsdp=3), MeshConfig(data=16)], ids=str)
    def test_a_product_that_is_not_the_number_of_devices(self, config):
        flags = f"--mesh.data {config.data} --mesh.fsdp {config.fsdp} --mesh.tensor 1: .* number of devices, 8"
        with pytest.raises(InputError, match=flags):
            make_mesh(config)

    def test_given_devices(self):
        mesh = make_mesh(MeshConfig(data=1, tensor=2), jax.devices()[5:7])
        assert mesh.devices.ravel().tolist() == jax.devices()[5:7]

    def test_a_batch_is_split_over_data_and_fsdp(self):
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        assert batch_sharding(mesh).shard_shape((12, 5)) == (3, 5)
        assert replicated(mesh).shard_shape((12, 5)) == (12, 5)

    def test_rows_that_are_a_multiple_of_its_parts(self):
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        check_rows(mesh, 12)
        with pytest.raises(InputError, match=r"batch.rows=7: not a multiple of the 4 devices .*; 4 or 8 would be"):
            check_rows(mesh, 7)
        with pytest.raises(InputError, match=r"batch.rows=3: .*; 4 would be"):
            check_rows(mesh, 3)

    def test_the_devices_in_a_line(self):
        line = describe_devices(make_mesh(MeshConfig(data=4, tensor=2)))
        assert line.startswith("8 devices: cpu")
        assert "mesh data 4, fsdp 1, tensor 2" in line


@pytest.fixture(scope="module")
def parameters():
    sharded = init_parameters(CONFIG, jax.random.key(7), make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    return init_parameters(CONFIG, jax.random.key(7)), sharded


def test_the_same_bits_on_one_device_and_on_eight(parameters):
    jax.tree.map(np.testing.assert_array_equal, *parameters)


def test_parameters_are_born_where_the_table_says(parameters):
    layers = parameters[1]["decoder"]["layers"]
    specs = {
        "table": parameters[1]["embedding"]["table"],
        "query": layers["self_attention"]["query"]["kernel"],
        "out": layers["cross_attention"]["out"]["kernel"],
        "inner": layers["feed_forward"]["inner"]["kernel"],
        "outer": layers["feed_forward"]["outer"]["kernel"],
        "scale": layers["feed_forward_frame"]["norm"]["scale"],
    }
    assert {name: leaf.sharding.spec for name, leaf in specs.items()} == {
        "table": PartitionSpec("tensor", "fsdp"),
        "query": PartitionSpec(None, "fsdp", "tensor"),
        "out": PartitionSpec(None, "tensor", "fsdp"),
        "inner": PartitionSpec(None, "fsdp", "tensor"),
        "outer": PartitionSpec(None, "tensor", "fsdp"),
        "scale": PartitionSpec(None, "fsdp"),
    }
    assert {shard.data.shape for shard in specs["query"].addressable_shards} == {(1, 3, 5)}  # one whole head each


@pytest.mark.parametrize(
    ("mesh", "size"),
    [
        ({"tensor": 8}, {"num_heads": 4}),
        ({"tensor": 8}, {"kv_heads": 4}),
        ({"tensor": 4}, {"ffn_width": 18}),
        ({"tensor": 2}, {"vocab_size": 13}),
        ({"tensor": 2}, {"source_vocab_size": 13, "share_embeddings": "none"}),
        ({"fsdp": 8}, {"width": 12}),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused(mesh, size):
    sizes = {"num_heads": 8, "width": 16, "ffn_width": 24, "vocab_size": 32, **size}
    (axis, devices), name = next(iter(mesh.items())), next(iter(size))
    with pytest.raises(InputError, match=rf"--model.{name} {size[name]}: --mesh.{axis} {devices} does not divide it"):
        check_mesh(make_mesh(MeshConfig(**mesh)), ModelConfig(head_width=2, **sizes))


class TestByDevice:
    x = jnp.arange(8 * 3 * 4.0).reshape(8, 3, 4)

    def run(self, function):
        def over(x):
            return by_device(function, [("batch", None, "heads")], ("batch", None, "heads"))(x)

        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        return jax.jit(on_mesh(mesh, over), in_shardings=batch_sharding(mesh))(self.x)

    def test_every_device_runs_over_its_rows_and_heads(self):
        seen = []

        def double(part):
            seen.append(part.shape)
            return 2 * part

        np.testing.assert_array_equal(self.run(double), 2 * self.x)
        assert set(seen) == {(2, 3, 2)}  # rows over data and fsdp, heads over tensor

    def test_what_is_summed_is_the_part_of_a_device(self):
        parts = self.x.reshape(4, 2, 3, 2, 2)  # [devices of rows, rows, _, devices of heads, heads]
        sums = jnp.broadcast_to(parts.sum((1, 2, 4), keepdims=True), parts.shape).reshape(self.x.shape)
        np.testing.assert_allclose(self.run(lambda part: jnp.full(part.shape, part.sum())), sums, rtol=1e-6)

    def test_without_a_mesh_it_is_the_function(self):
        assert by_device(jnp.sin, [("batch",)], ("batch",)) is jnp.sin
