"""The fused attention kernels of accelerators, which never hold the weights: cuDNN's, and Pallas' on a TPU."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from transformer_jax import sharding
from transformer_jax.masks import SegmentMask

TPU_BLOCKS = (512, 256, 128)  # queries and keys of a block: the largest that divides the lengths


def cudnn_takes(query: Float[Array, "B T H K"], key: Float[Array, "B S H K"]) -> bool:
    """Whether cuDNN is there, and has a kernel for these: half precision, even lengths, channels in eights to 128."""
    device = jax.devices()[0]
    if device.platform != "gpu" or float(getattr(device, "compute_capability", 0)) < 8:
        return False
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128 and not (query.shape[1] | key.shape[1]) % 2


def cudnn_attention(
    query: Float[Array, "B T H K"], key: Float[Array, "B S H K"], value: Float[Array, "B S H K"], mask: SegmentMask
) -> Float[Array, "B T H K"]:
    """`dot_product_attention` by cuDNN; of one segment a row by lengths, its fastest form, else by a mask."""
    key, value = _without_padding(mask, key, value)
    attend = functools.partial(jax.nn.dot_product_attention, query, key, value, implementation="cudnn")
    if mask.packed:
        output = attend(mask=mask.dense())
    else:
        of_query, of_key = ((segments == 1).sum(-1, dtype=jnp.int32) for segments in (mask.query, mask.key))
        output = attend(is_causal=mask.causal, query_seq_lengths=of_query, key_value_seq_lengths=of_key)
    return jnp.where(mask.sees()[..., None, None], output, 0)


def tpu_takes(query: Float[Array, "B T H K"], key: Float[Array, "B S H K"]) -> bool:
    """Whether the kernel's blocks divide the lengths."""
    return not (query.shape[1] | key.shape[1]) % TPU_BLOCKS[-1]


def tpu_attention(
    query: Float[Array, "B T H K"], key: Float[Array, "B S H K"], value: Float[Array, "B S H K"], mask: SegmentMask
) -> Float[Array, "B T H K"]:
    """`dot_product_attention` by Pallas' kernel, on each device for its rows and heads."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    block = next(size for size in TPU_BLOCKS if not (query.shape[1] | key.shape[1]) % size)
    blocks = pallas.BlockSizes(
        block_q=block,
        block_k_major=block,
        block_k=block,
        block_b=1,
        block_q_major_dkv=block,
        block_k_major_dkv=block,
        block_k_dkv=block,
        block_q_dkv=block,
        block_k_major_dq=block,
        block_k_dq=block,
        block_q_dq=block,
    )

    def attend(query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array) -> Array:
        return pallas.flash_attention(
            *(x.swapaxes(1, 2) for x in (query, key, value)),
            segment_ids=pallas.SegmentIds(query_segments, key_segments),
            causal=mask.causal,
            sm_scale=query.shape[-1] ** -0.5,
            block_sizes=blocks,
        ).swapaxes(1, 2)

    key, value = _without_padding(mask, key, value)
    heads, rows = ("batch", None, "heads", None), ("batch", None)
    on_each_device = sharding.by_device(attend, (heads, heads, heads, rows, rows), heads)
    output = on_each_device(query, key, value, mask.query, mask.key)
    return jnp.where(mask.sees()[..., None, None], output, 0)


def _without_padding(
    mask: SegmentMask, key: Float[Array, "B S H K"], value: Float[Array, "B S H K"]
) -> tuple[Array, Array]:
    """Zeros where nothing may be seen, so that no NaN comes from there."""
    seen = (mask.key > 0)[..., None, None]
    return jnp.where(seen, key, 0), jnp.where(seen, value, 0)
