"""Programs are read as they are: products counted by hand, collectives as each compiler writes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from transformer_jax.config import MeshConfig
from transformer_jax.programs import Collective, collectives, flops_of, moved_by_kind
from transformer_jax.sharding import make_mesh


def of(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def flops(function, *arguments):
    return flops_of(jax.make_jaxpr(function)(*arguments))


PRODUCT = 2 * 3 * 5 * 7  # of [3, 5] and [5, 7]


class TestFlops:
    def test_a_product(self):
        assert flops(jnp.matmul, of(3, 5), of(5, 7)) == PRODUCT

    def test_batch_axes_and_several_contracted_ones(self):
        assert flops(lambda x, y: jnp.einsum("abcd,aced->abe", x, y), of(2, 3, 5, 7), of(2, 5, 11, 7)) == (
            2 * 2 * 3 * 11 * 5 * 7
        )

    def test_a_convolution(self):
        assert flops(lambda x, w: jnp.convolve(x, w, "valid"), of(13), of(5)) == 2 * 9 * 5

    def test_what_is_no_product_counts_nothing(self):
        assert flops(lambda x: jnp.exp(x).sum() * x, of(3, 5)) == 0

    def test_a_gradient_has_two_more_products(self):
        loss = lambda x, y: (x @ y).sum()  # noqa: E731
        assert flops(jax.value_and_grad(loss, argnums=(0, 1)), of(3, 5), of(5, 7)) == 3 * PRODUCT

    def test_the_body_of_a_scan_counts_by_its_length(self):
        def loss(x, ys):
            return jax.lax.scan(lambda x, y: (jnp.tanh(x @ y), None), x, ys)[0].sum()

        assert flops(loss, of(3, 5), of(11, 5, 5)) == 11 * 2 * 3 * 5 * 5
        assert flops(jax.grad(loss, argnums=(0, 1)), of(3, 5), of(11, 5, 5)) == 3 * 11 * 2 * 3 * 5 * 5

    def test_what_is_computed_again_counts_again(self):
        def loss(x, y):
            return (jnp.tanh(x @ y) ** 2).sum()

        assert flops(jax.grad(loss, argnums=(0, 1)), of(3, 5), of(5, 7)) == 3 * PRODUCT
        assert flops(jax.grad(jax.checkpoint(loss), argnums=(0, 1)), of(3, 5), of(5, 7)) == 4 * PRODUCT

    def test_functions_within_functions(self):
        @jax.custom_vjp
        def product(x, y):
            return jax.jit(jnp.matmul)(x, y)

        product.defvjp(lambda x, y: (product(x, y), (x, y)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))
        assert flops(product, of(3, 5), of(5, 7)) == PRODUCT
        assert flops(jax.grad(lambda x, y: product(x, y).sum()), of(3, 5), of(5, 7)) == 3 * PRODUCT

    def test_the_dearest_branch(self):
        def either(wanted, x, y):
            return jax.lax.cond(wanted, lambda: x @ y, lambda: jnp.tanh(x @ y) @ jnp.zeros((7, 7)))

        assert flops(either, jax.ShapeDtypeStruct((), bool), of(3, 5), of(5, 7)) == PRODUCT + 2 * 3 * 7 * 7

    def test_the_program_of_one_device_counts_on_each(self):
        mesh = make_mesh(MeshConfig(data=2, fsdp=4))
        rows = PartitionSpec(("data", "fsdp"))
        mapped = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
        assert flops(mapped, of(24, 5), of(5, 7)) == 8 * PRODUCT


CPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[16,128])) -> (s32[], f32[16,128]) {
  %all-gather.9 = f32[128,64]{1,0} all-gather(%slice), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  ROOT %tuple.44 = (s32[], f32[16,128]{1,0}) tuple(%counter, %all-gather.9)
}

%condition (carry: (s32[], f32[16,128])) -> pred[] {
  ROOT %less = pred[] compare(%counter, %limit), direction=LT
}

ENTRY %main (p: f32[16,128]) -> f32[16,128] {
  %p = f32[16,128]{1,0} parameter(0)
  %while.29 = (s32[], f32[16,128]{1,0}) while(%tuple.39), condition=%condition, body=%body, \
backend_config={"known_init_step":{"init":"0","step":"1"},"known_trip_count":{"n":"12"}}
  %all-gather.10 = bf16[16,128]{0,1} all-gather(%copy), channel_id=2, \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, dimensions={1}
  %all-reduce.15 = (f32[16,128]{1,0}, /*index=1*/f32[64,32]{1,0}) all-reduce(%a, %b), channel_id=7, \
replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  %get-tuple-element.1 = f32[16,128]{1,0} get-tuple-element(%all-reduce.15), index=0
  %all-to-all.2 = (s8[1,16]{1,0}, s8[1,16]{1,0}) all-to-all(%c, %d), channel_id=28, \
replica_groups=mesh['a'=8] {'a':(2)2}
  %collective-permute = s32[16,1]{1,0} collective-permute(%e), channel_id=20, source_target_pairs={{0,1},{1,0}}
  %all-reduce.16 = pred[] all-reduce(%f), channel_id=8, replica_groups={}, to_apply=%add
  ROOT %copy.1 = f32[16,128]{1,0} copy(%get-tuple-element.1)
}
"""


def test_as_the_cpu_compiler_writes_it():
    found = {one.kind + str(one.group): one for one in collectives(CPU)}
    assert found == {
        "all-gather4": Collective("all-gather", (("f32", (128, 64)),), group=4, times=12),
        "all-gather2": Collective("all-gather", (("bf16", (16, 128)),), group=2, times=1),
        "all-reduce2": Collective("all-reduce", (("f32", (16, 128)), ("f32", (64, 32))), group=2, times=1),
        "all-to-all2": Collective("all-to-all", (("s8", (1, 16)), ("s8", (1, 16))), group=2, times=1),
        "collective-permute8": Collective("collective-permute", (("s32", (16, 1)),), group=8, times=1),
        "all-reduce8": Collective("all-reduce", (("pred", ()),), group=8, times=1),
    }
    assert {name: one.moved for name, one in found.items()} == {
        "all-gather4": 12 * 3 * 32 * 64 * 4,  # of the four parts three are not there yet
        "all-gather2": 16 * 64 * 2,
        "all-reduce2": (16 * 128 + 64 * 32) * 4,  # half of it is reduced, then gathered
        "all-to-all2": 16,
        "collective-permute8": 16 * 4,
        "all-reduce8": 1,  # 7/4 of a byte
    }
    assert found["collective-permute8"].shapes == ((16,),)


TPU = """\
HloModule jit_step, is_scheduled=true, num_partitions=8, frontend_attributes={arg_layout_modes="default"}

%fused_computation.35 (param_0.92: bf16[1,32,64]) -> (bf16[1,32,64], bf16[1,128,64], u32[]) {
  %param_0.92 = bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.31 = bf16[1,128,64]{2,1,0:T(8,128)(2,1)} all-gather(%param_0.92), channel_id=46, \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={1}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.6 = (bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)}, bf16[1,128,64]{2,1,0:T(8,128)}, u32[]{:S(2)}) \
custom-call(%all-gather.31), custom_call_target="AsyncCollectiveStart"
}

%fused_computation.37 (param_0.98: bf16[1,32,64], param_1.107: bf16[1,128,64]) -> bf16[1,128,64] {
  %all-gather.35 = bf16[1,128,64]{2,1,0:T(8,128)(2,1)} all-gather(%param_0.98), channel_id=46, \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={1}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.8 = bf16[1,128,64]{2,1,0:T(8,128)(2,1)} custom-call(%param_0.98, %all-gather.35), \
custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.clone.1 (input.2: f32[128,64]) -> f32[32,64] {
  %input.2 = f32[128,64]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.12 = f32[128,64]{1,0:T(8,128)} all-reduce(%input.2), channel_id=7, \
replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add.2.clone
  ROOT %dynamic-slice.94 = f32[32,64]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.12, %m), dynamic_slice_sizes={32,64}
}

%wide.region_2 (wide.param.5: (s32[], f32[16,128])) -> (s32[], f32[16,128]) {
  %async-collective-start = (bf16[1,32,64]{2,1,0:T(8,128)(2,1)S(1)}, bf16[1,128,64]{2,1,0:T(8,128)}, u32[]{:S(2)}) \
fusion(%s), kind=kCustom, calls=%fused_computation.35
  %async-collective-done = bf16[1,128,64]{2,1,0:T(8,128)} fusion(%s, %t), kind=kCustom, calls=%fused_computation.37
  %fusion.41 = f32[32,64]{1,0:T(8,128)S(1)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.clone.1
  ROOT %tuple.60 = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)S(1)}) tuple(%i, %fusion.41)
}

%wide.region_3 (wide.param.3: (s32[], f32[16,128])) -> pred[] {
  %constant.62.clone.1 = s32[]{:T(128)} constant(12)
  %get-tuple-element.230 = s32[]{:T(128)} get-tuple-element(%wide.param.3), index=0
  ROOT %lt.20 = pred[]{:T(512)} compare(%get-tuple-element.230, %constant.62.clone.1), direction=LT
}

ENTRY %main.7_spmd (param.5: f32[16,128]) -> f32[16,128] {
  %collective-permute-start = (s32[16,1]{0,1:T(1,128)S(1)}, s32[16,1]{0,1:T(1,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%fusion.14), channel_id=21, source_target_pairs={{0,0},{1,2}}
  %collective-permute-done = s32[16,1]{0,1:T(1,128)S(1)} collective-permute-done(%collective-permute-start)
  ROOT %while.32 = (s32[]{:T(128)}, f32[16,128]{1,0:T(8,128)}) while(%t), condition=%wide.region_3, body=%wide.region_2
}
"""


def test_as_the_tpu_compiler_writes_it():
    assert collectives(TPU) == [
        Collective("collective-permute", (("s32", (16, 1)),), group=8, times=1),
        Collective("all-gather", (("bf16", (1, 128, 64)),), group=4, times=12),
        Collective("reduce-scatter", (("f32", (32, 64)),), group=4, times=12),
    ]
    assert collectives(TPU)[1].shapes == ((128, 64),)
    assert moved_by_kind(collectives(TPU)) == {
        "collective-permute": (1, 16 * 4),
        "all-gather": (12, 12 * 3 * 32 * 64 * 2),
        "reduce-scatter": (12, 12 * 3 * 32 * 64 * 4),
    }


UNROLLED = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%all-reduce-scatter.1 (input.1: bf16[16,24]) -> bf16[2,24] {
  %all-reduce.1 = bf16[16,24]{1,0} all-reduce(%input.1), channel_id=9, replica_groups={}, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[2,24]{1,0} dynamic-slice(%all-reduce.1, %m), dynamic_slice_sizes={2,24}
}

%all-reduce-scatter.2 (input.2: bf16[16,24]) -> bf16[2,24] {
  %all-reduce.2 = bf16[16,24]{1,0} all-reduce(%input.2), channel_id=9, replica_groups={}, to_apply=%add
  ROOT %dynamic-slice.2 = bf16[2,24]{1,0} dynamic-slice(%all-reduce.2, %m), dynamic_slice_sizes={2,24}
}

%async_collective_fusion.3 (p: f32[5,3]) -> f32[40,3] {
  ROOT %all-gather.2 = f32[40,3]{1,0} all-gather(%p), channel_id=6, replica_groups={}, dimensions={0}
}

%fused_computation.4 (p: f32[5,3]) -> (f32[5,3], f32[40,3], u32[]) {
  %all-gather.1 = f32[40,3]{1,0} all-gather(%p), channel_id=6, replica_groups={}, dimensions={0}
  ROOT %custom-call.1 = (f32[5,3]{1,0}, f32[40,3]{1,0}, u32[]) custom-call(%all-gather.1), \
custom_call_target="AsyncCollectiveStart"
}

%body (p: (s32[], bf16[64,32])) -> (s32[], bf16[64,32]) {
  %stride = s32[] constant(3)
  %i = s32[] get-tuple-element(%p), index=0
  %next = s32[] add(%i, %stride)
  %permute.1 = bf16[64,32]{1,0} collective-permute(%x), channel_id=5, source_target_pairs={{0,1},{1,0}}
  %permute.2 = bf16[64,32]{1,0} collective-permute(%permute.1), channel_id=5, source_target_pairs={{0,1},{1,0}}
  %fusion.3 = f32[40,3]{1,0} fusion(%y), kind=kOutput, calls=%async_collective_fusion.3
  ROOT %tuple = (s32[], /*index=1*/bf16[64,32]{1,0}) tuple(%next, /*index=1*/%permute.2)
}

%condition (p: (s32[], bf16[64,32])) -> pred[] {
  %limit = s32[] constant(11)
  %i = s32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (p: bf16[64,32]) -> bf16[64,32] {
  %start = (f32[5,3]{1,0}, f32[40,3]{1,0}, u32[]) fusion(%s), kind=kCustom, calls=%fused_computation.4
  %fusion.1 = bf16[2,24]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.1
  %fusion.2 = bf16[2,24]{1,0} fusion(%h), kind=kCustom, calls=%all-reduce-scatter.2
  ROOT %while = (s32[], bf16[64,32]{1,0}) while(%t), condition=%condition, body=%body
}
"""


def test_rounds_of_a_loop_that_are_written_out_share_a_channel_and_count_each():
    assert moved_by_kind(collectives(UNROLLED)) == {
        "collective-permute": (8, 8 * 64 * 32 * 2),  # 2 in each of the rounds 0, 3, 6 and 9
        "reduce-scatter": (2, 2 * 7 * 2 * 24 * 2),
        "all-gather": (1, 7 * 5 * 3 * 4),  # what runs beside the products of the loop is what was started before it
    }


@pytest.mark.parametrize(
    ("written", "instead", "rounds"),
    [
        ("constant(11)", "constant(0.5)", 1),
        ("compare(%i, %limit)", "compare(%limit, %i)", 1),
        ("compare(%i, %limit)", "compare(%i, %carried)", 1),
        ("direction=LT", "direction=NE", 1),
        ("pred[] compare(%i, %limit), direction=LT", "pred[] fusion(%i, %limit), calls=%less", 1),
        ("compare(%i, %limit)", "compare(s32[]{:T(128)} %i, s32[]{:T(128)} %limit)", 4),
        ("add(%i, %stride)", "add(%i, %x)", 11),  # steps of 1 where they are not known
        ("add(%i, %stride)", "multiply(%i, %stride)", 11),
        ("tuple(%next, /*index=1*/%permute.2)", "fusion(%next, %permute.2), calls=%both", 11),
        ("tuple(%next, /*index=1*/%permute.2)", "tuple()", 11),
    ],
)
def test_a_loop_counts_as_far_as_its_text_tells(written, instead, rounds):
    assert written in UNROLLED
    found = moved_by_kind(collectives(UNROLLED.replace(written, instead)))
    assert found["collective-permute"] == (2 * rounds, 2 * rounds * 64 * 32 * 2)


GPU = """\
HloModule jit_step, is_scheduled=true, replica_count=1, num_partitions=4

%async_computation (param_0: f32[8,4]) -> f32[2,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %reduce-scatter.1 = f32[2,4]{1,0} reduce-scatter(%param_0), channel_id=3, replica_groups={{0,1,2,3}}
}

ENTRY %main (p: f32[2,4]) -> f32[8,4] {
  %all-gather-start = ((f32[2,4]{1,0}, bf16[3]{0}), (f32[8,4]{1,0}, bf16[12]{0})) all-gather-start(%p, %q), \
channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
  %all-gather-done = (f32[8,4]{1,0}, bf16[12]{0}) all-gather-done(%all-gather-start)
  %all-reduce-start = f32[8,4]{1,0} all-reduce-start(%x), channel_id=2, replica_groups={{0,1},{2,3}}, to_apply=%add
  %all-reduce-done = f32[8,4]{1,0} all-reduce-done(%all-reduce-start)
  %async-start = ((f32[8,4]{1,0}), f32[2,4]{1,0}) async-start(%x), calls=%async_computation
  %async-done = f32[2,4]{1,0} async-done(%async-start), calls=%async_computation
  ROOT %copy = f32[8,4]{1,0} copy(%all-reduce-done)
}
"""


def test_as_the_gpu_compiler_writes_it():
    assert collectives(GPU) == [
        Collective("all-gather", (("f32", (8, 4)), ("bf16", (12,))), group=4, times=1),
        Collective("all-reduce", (("f32", (8, 4)),), group=2, times=1),
        Collective("reduce-scatter", (("f32", (2, 4)),), group=4, times=1),
    ]


def test_a_program_compiled_here():
    mesh = make_mesh(MeshConfig(data=8))
    rows, whole = (jax.sharding.NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))

    def product(x, ys):
        def body(x, y):
            return x @ jax.lax.with_sharding_constraint(y, whole), None

        return jax.lax.scan(body, x, ys)[0]

    split = jax.sharding.NamedSharding(mesh, PartitionSpec(None, "data"))
    step = jax.jit(product, in_shardings=(rows, split), out_shardings=rows)
    found = collectives(step.lower(of(8, 16), of(13, 16, 16)).compile().as_text())
    assert [(one.kind, one.shapes, one.group, one.times) for one in found] == [("all-gather", ((16, 16),), 8, 13)]
    assert moved_by_kind(found) == {"all-gather": (13, 13 * 7 * 2 * 16 * np.dtype(np.float32).itemsize)}
