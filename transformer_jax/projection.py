"""The linear projection that attention, feed-forward network and output are made of."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class Projection(nn.Module):
    """x W, with a bias by choice; the kernel is Glorot-uniform and two-dimensional.

    Leading axes are flattened before the product: on a CPU the gradient of a two-dimensional operand takes the fast
    path of XLA, and a kernel [D, H*K] can be split between heads.
    """

    features: int
    axes: tuple[str, str]  # logical names of the kernel's two axes
    use_bias: bool = False
    dtype: str = "float32"  # of the product; the kernel itself is float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """[..., in] to [..., features]."""
        initialiser = nn.with_logical_partitioning(nn.initializers.xavier_uniform(), self.axes)
        kernel = self.param("kernel", initialiser, (x.shape[-1], self.features), jnp.float32)
        y = x.astype(self.dtype).reshape(-1, x.shape[-1]) @ kernel.astype(self.dtype)  # -> [B*T, O]
        if self.use_bias:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            y = y + self.param("bias", zeros, (self.features,), jnp.float32).astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)
