"""The fused attention kernels of accelerators, which never hold the weights: cuDNN's, and Pallas' on a TPU."""

import functools
import re

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from transformer_jax import sharding
from transformer_jax.attention.dot_product import for_each_head
from transformer_jax.masks import SegmentMask, segment_mask

PACKED = 512  # queries of packed rows that cuDNN is given
TPU_BLOCKS = (512, 256, 128)  # queries and keys of a block: the largest that divides the lengths


def cudnn_takes(query: Float[Array, "B T H K"], key: Float[Array, "B S G K"], mask: SegmentMask) -> bool:
    """Whether cuDNN is there, and has a kernel for these: half precision, even lengths, channels in eights to 128.

    Of packed rows it reads a mask, whose memory grows with the square of the length: not of long ones.
    """
    device = jax.devices()[0]
    capability = re.fullmatch(r"\d+\.\d+", str(getattr(device, "compute_capability", "")))  # AMD's are others
    if device.platform != "gpu" or capability is None or float(capability.group()) < 8 or not _shared(query, key):
        return False
    half, channels = query.dtype in (jnp.bfloat16, jnp.float16), query.shape[-1]
    fits = channels % 8 == 0 and channels <= 128 and not (query.shape[1] | key.shape[1]) % 2
    return half and fits and (not mask.packed or query.shape[1] <= PACKED)


def cudnn_attention(
    query: Float[Array, "B T H K"], key: Float[Array, "B S G K"], value: Float[Array, "B S G K"], mask: SegmentMask
) -> Float[Array, "B T H K"]:
    """`dot_product_attention` by cuDNN; of one segment a row by lengths, its fastest form, else by a mask."""
    sees = mask.sees()
    query, key, value = _shielded(mask, sees, query, key, value)
    attend = functools.partial(
        jax.nn.dot_product_attention, query, key, value, is_causal=mask.causal, implementation="cudnn"
    )
    if mask.packed:
        # Rows that see nothing see everything, and are dropped below: of none the kernel has no sum to divide by.
        output = attend(mask=segment_mask(mask.query, mask.key) | ~sees[:, None, :, None])
    else:
        of_query, of_key = ((segments == 1).sum(-1, dtype=jnp.int32) for segments in (mask.query, mask.key))
        output = attend(query_seq_lengths=of_query, key_value_seq_lengths=of_key)
    return jnp.where(sees[..., None, None], output, 0)


def tpu_takes(query: Float[Array, "B T H K"], key: Float[Array, "B S G K"]) -> bool:
    """Whether the kernel has blocks for these lengths and channels, and a mesh of ours says which device runs what."""
    lengths, channels = query.shape[1] | key.shape[1], query.shape[-1]
    fits = not lengths % TPU_BLOCKS[-1] and (channels <= 128 or not channels % 128)
    return fits and sharding.is_ours() and _shared(query, key) and not jax.config.read("jax_enable_x64")


def _shared(query: Float[Array, "B T H K"], key: Float[Array, "B S G K"]) -> bool:
    """Whether the devices share rows and heads evenly; not so of a program for any number of rows."""
    rows, devices = query.shape[0], sharding.pieces("heads")
    heads = query.shape[2] % devices or key.shape[2] % devices
    return isinstance(rows, int) and not (rows % sharding.pieces("batch") or heads)


def tpu_attention(
    query: Float[Array, "B T H K"], key: Float[Array, "B S G K"], value: Float[Array, "B S G K"], mask: SegmentMask
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
        key, value = (for_each_head(x, query.shape[2], axis=2) for x in (key, value))  # it knows no groups
        return pallas.flash_attention(
            *(x.swapaxes(1, 2) for x in (query, key, value)),
            segment_ids=pallas.SegmentIds(query_segments, key_segments),
            causal=mask.causal,
            sm_scale=query.shape[-1] ** -0.5,
            block_sizes=blocks,
        ).swapaxes(1, 2)

    sees = mask.sees()
    query, key, value = _shielded(mask, sees, query, key, value)
    heads, rows = ("batch", None, "heads", None), ("batch", None)
    on_each_device = sharding.by_device(attend, (heads, heads, heads, rows, rows), heads)
    output = on_each_device(query, key, value, mask.query, mask.key)
    return jnp.where(sees[..., None, None], output, 0)


def _shielded(
    mask: SegmentMask,
    sees: Bool[Array, "B T"],
    query: Float[Array, "B T H K"],
    key: Float[Array, "B S G K"],
    value: Float[Array, "B S G K"],
) -> tuple[Array, Array, Array]:
    """Zeros where nothing sees or is seen, so that no NaN comes from there, nor goes there with a gradient."""
    seen = (mask.key > 0)[..., None, None]
    return jnp.where(sees[..., None, None], query, 0), jnp.where(seen, key, 0), jnp.where(seen, value, 0)
