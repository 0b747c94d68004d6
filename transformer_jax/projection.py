"""The linear projection that attention, feed-forward network and output are made of."""

import flax.linen as nn
from jaxtyping import Array, Float

from transformer_jax.sharding import parameter


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
        width, (into, out) = x.shape[-1], self.axes
        sizes = {into: width, out: self.features}
        kernel = parameter(self, "kernel", nn.initializers.xavier_uniform(), **sizes)
        y = x.astype(self.dtype).reshape(-1, width) @ kernel.astype(self.dtype)  # -> [B*T, O]
        if self.use_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, **{out: self.features})
            y = y + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)
