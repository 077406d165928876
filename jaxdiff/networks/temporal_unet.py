"""Convolutions over the horizon: Diffuser's U-Net, a denoiser of trajectories, and its value of noisy trajectories."""

from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdiff.networks.mlp import mish, torch_uniform
from jaxdiff.networks.tokens import TokenFeatures, check_sizes, flatten
from jaxdiff.types import Array

GROUPS = 8  # of channels that are normalised together
HEADS, HEAD_DIM = 4, 32  # of linear attention, at every width
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def check_horizon(horizon: int, mults: tuple[int, ...]) -> None:
    """Refuses a horizon that a U-Net with these resolutions cannot halve and double back.

    Raises:
      ValueError: horizon is no positive multiple of 2**(len(mults) - 1).
    """
    halvings = max(len(mults) - 1, 0)
    step = 2**halvings
    if horizon < 1 or horizon % step:
        below = max(horizon, 0) // step * step
        offers = " or ".join(str(offer) for offer in (below, below + step) if offer > 0)
        count = NUMBERS[halvings] if halvings < len(NUMBERS) else str(halvings)
        plural = "" if halvings == 1 else "s"
        raise ValueError(
            f"horizon={horizon} must be a multiple of {step} ({count} halving{plural} of the U-Net); try {offers}."
        )


def check_convolutions(width: int, mults: tuple[int, ...], kernel_size: int) -> None:
    """Raises ValueError for sizes of which no network of convolutions can be made."""
    if width < GROUPS or width % GROUPS:
        raise ValueError(f"width={width}; it must be a multiple of {GROUPS}, the number of groups of a GroupNorm.")
    if not mults or any(mult < 1 for mult in mults):
        raise ValueError(f"mults={mults}; give at least one number, each at least 1, as in (1, 2, 4, 8).")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size={kernel_size}; it must be odd, so that a convolution keeps the horizon.")


def _neighbours(x: Array, offsets: range, stride: int = 1) -> Array:
    """[x_{i + o} for o in offsets], zeros beyond the ends: [N, H, I] -> [N, ceil(H / stride), len(offsets) I]."""
    before, after = max(-offsets[0], 0), max(offsets[-1], 0)
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
    shifted = [padded[:, before + o : before + o + x.shape[1] : stride] for o in offsets]
    return jnp.concatenate(shifted, axis=-1)


class Conv(nn.Module):
    """y_i = b + sum_m x_{stride i + m - (kernel_size - 1) / 2} w_m, [N, H, I] -> [N, ceil(H / stride), channels].

    As one matrix product with the neighbours side by side: `vmap` over lanes, which have kernels of their own, keeps it
    a batched product, where a convolution would become a grouped one.
    """

    channels: int
    kernel_size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.kernel_size, x.shape[-1], self.channels)
        kernel = self.param("kernel", torch_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,))
        half = self.kernel_size // 2
        columns = _neighbours(x, range(-half, half + 1), self.stride)
        return columns @ kernel.reshape(-1, self.channels) + bias[None, None]


class ConvTranspose(nn.Module):
    """y_j = b + sum over 2 i + 2 - m = j of x_i w_m, m = 0 .. 3: [N, H, I] -> [N, 2 H, channels].

    PyTorch's with stride 2, padding 1 and the kernel reversed, as two matrix products: of even and of odd j.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", torch_uniform(), (4, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,))
        even = _neighbours(x, range(-1, 1)) @ kernel[jnp.array([0, 2])].reshape(-1, self.channels)
        odd = _neighbours(x, range(2)) @ kernel[jnp.array([1, 3])].reshape(-1, self.channels)
        both = jnp.stack([even, odd], axis=2).reshape(x.shape[0], 2 * x.shape[1], self.channels)
        return both + bias[None, None]


class ConvBlock(nn.Module):
    """mish(GroupNorm(conv(x))), [N, H, I] -> [N, H, channels]; one group where 8 do not divide the channels."""

    channels: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.channels, self.kernel_size)(x)
        groups = GROUPS if self.channels % GROUPS == 0 else 1
        return mish(nn.GroupNorm(groups, epsilon=1e-5)(x))


class ResidualBlock(nn.Module):
    """skip(x) + block_2(block_1(x) + Dense(mish(features))), [N, H, I] -> [N, H, channels].

    features [N or 1, H or 1, F]; skip is a linear map of each token, nothing where the channels stay.
    """

    channels: int
    kernel_size: int

    @nn.compact
    def __call__(self, x: Array, features: Array) -> Array:
        told = nn.Dense(self.channels, kernel_init=torch_uniform())(mish(features))
        hidden = ConvBlock(self.channels, self.kernel_size)(x) + told
        hidden = ConvBlock(self.channels, self.kernel_size)(hidden)
        if x.shape[-1] != self.channels:
            x = nn.Dense(self.channels, kernel_init=torch_uniform(), name="skip")(x)
        return hidden + x


class LinearAttention(nn.Module):
    """x + Dense(o), with heads o_h = C' q_h / sqrt(d), C = sum_h softmax_h(k)_h v_h', [N, H, W] -> [N, H, W].

    q, k, v are linear in LayerNorm(x); the softmax is over the horizon, for each of the d = 32 numbers of a key, so the
    cost is linear in H.

    Reference: Shen et al. 2021, arXiv:1812.01243, as in Janner et al. 2022 [code].
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = HEADS * HEAD_DIM
        qkv = nn.Dense(3 * size, use_bias=False, kernel_init=torch_uniform())(nn.LayerNorm(epsilon=1e-5)(x))
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, HEADS, HEAD_DIM), -3, 0)
        context = jnp.einsum("nhad,nhae->nade", jax.nn.softmax(k, axis=1), v)
        read = jnp.einsum("nade,nhad->nhae", context, q * HEAD_DIM**-0.5)
        return x + nn.Dense(x.shape[-1], kernel_init=torch_uniform())(read.reshape(*x.shape[:-1], size))


def down(channels: int) -> nn.Module:
    """H -> ceil(H / 2)."""
    return Conv(channels, 3, stride=2)


def up(channels: int) -> nn.Module:
    """H -> 2 H."""
    return ConvTranspose(channels)


def pool(features: Array) -> Array:
    """Means of neighbouring tokens, [N, H, F] -> [N, H / 2, F]; features that all tokens share stay."""
    num, horizon, size = features.shape
    return features if horizon == 1 else features.reshape(num, horizon // 2, 2, size).mean(axis=2)


class TemporalUnet(nn.Module):
    """Diffuser's denoiser: residual blocks of convolutions at several resolutions of the horizon.

    level i   z <- res(res(z)),  keep z,  z <- down(z) unless it is the last;   channels width * mults[i]
    middle    z <- res(res(z))
    level i   z <- up(res(res([z, kept_i]))),   i = last .. 1, channels of level i - 1
    end       Dense(ConvBlock(z))

    What level 0 kept is not read, as in the released code. With `attention`, linear attention follows the blocks of
    every level and stands between those of the middle.

    x [*B, H, D], t [], [*B] or [*B, H], cond None or (values [*B, C], keep [*B, G]) -> [*B, H, out]. Where each token
    has its own t, coarser levels are told the mean embedding of the tokens they stand for.

    Raises:
      ValueError: sizes of `check_convolutions`, a horizon of `check_horizon`, or t or cond of another shape.

    Reference: Janner et al. 2022, arXiv:2205.09991, appendix C and code; `cond_sizes` as in Ajay et al. 2023,
    arXiv:2211.15657, which has width=128 and mults=(1, 4, 8).
    """

    out: int
    width: int = 32
    mults: tuple[int, ...] = (1, 2, 4, 8)
    kernel_size: int = 5
    attention: bool = False
    cond_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_convolutions(self.width, self.mults, self.kernel_size)
        check_sizes(self.width, self.cond_sizes)
        super().__post_init__()

    def blocks(self, x: Array, features: Array, channels: int) -> Array:
        for _ in range(2):
            x = ResidualBlock(channels, self.kernel_size)(x, features)
        return LinearAttention()(x) if self.attention else x

    def across(self, z: Array, features: Array, batch: tuple[int, ...]) -> Array:
        """What trajectories tell one another after the middle and in every skip that is read: here nothing.

        z [N, H, C] with N = prod(batch), features [N or 1, H or 1, F] -> [N, H, C].
        """
        del features, batch
        return z

    @nn.compact
    def __call__(self, x: Array, t: Array, cond: Any) -> Array:
        flat = flatten(x, t, cond, self.cond_sizes)
        check_horizon(x.shape[-2], self.mults)
        channels = [self.width * mult for mult in self.mults]
        last = len(channels) - 1
        features = [TokenFeatures(self.width, self.cond_sizes)(flat.t, flat.cond)]
        z, kept = flat.x, []
        for i, size in enumerate(channels):
            z = self.blocks(z, features[i], size)
            kept.append(z)
            if i < last:
                z = down(size)(z)
                features.append(pool(features[i]))
        z = ResidualBlock(channels[last], self.kernel_size)(z, features[last])
        z = LinearAttention()(z) if self.attention else z
        z = ResidualBlock(channels[last], self.kernel_size)(z, features[last])
        z = self.across(z, features[last], x.shape[:-2])
        for i in range(last, 0, -1):
            skip = self.across(kept[i], features[i], x.shape[:-2])
            z = self.blocks(jnp.concatenate([z, skip], axis=-1), features[i], channels[i - 1])
            z = up(channels[i - 1])(z)
        z = ConvBlock(self.width, self.kernel_size)(z)
        return nn.Dense(self.out, kernel_init=torch_uniform())(z).reshape(*x.shape[:-1], self.out)


class TrajectoryValue(nn.Module):
    """V(x, t), Diffuser's value of noisy trajectories: the U-Net's way down, then a readout.

    level i   z <- down(res(res(z))),   channels width * mults[i]
    twice     z <- down(res(z)),        channels halved
    end       Dense_1(mish(Dense_{n/2}([flattened z, embed(t)]))),   n the numbers of the flattened z

    x [*B, H, D], t [] or [*B] -> [*B]; one level for all tokens. Any H, since odd lengths are halved upwards; the
    parameters depend on H.

    Raises:
      ValueError: sizes of `check_convolutions`, channels that cannot be halved twice, or t of another shape.

    Reference: Janner et al. 2022, arXiv:2205.09991, appendix C and code.
    """

    width: int = 32
    mults: tuple[int, ...] = (1, 2, 4, 8)
    kernel_size: int = 5

    def __post_init__(self) -> None:
        check_convolutions(self.width, self.mults, self.kernel_size)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array, t: Array) -> Array:
        if jnp.shape(t) not in ((), x.shape[:-2]):
            raise ValueError(
                f"t has shape {jnp.shape(t)}; allowed for the value of a trajectory x of shape {x.shape}: () or "
                f"{x.shape[:-2]}."
            )
        flat = flatten(x, t, None, ())
        features = TokenFeatures(self.width)(flat.t, None)
        z, size = flat.x, 0
        for mult in self.mults:
            size = self.width * mult
            for _ in range(2):
                z = ResidualBlock(size, self.kernel_size)(z, features)
            z = down(size)(z)
        for part in (size // 2, size // 4):
            z = down(part)(ResidualBlock(part, self.kernel_size)(z, features))
        z = z.reshape(z.shape[0], z.shape[1] * z.shape[2])
        told = jnp.broadcast_to(features[:, 0], (z.shape[0], self.width))
        hidden = nn.Dense(z.shape[-1] // 2, kernel_init=torch_uniform())(jnp.concatenate([z, told], axis=-1))
        return nn.Dense(1, kernel_init=torch_uniform())(mish(hidden)).reshape(x.shape[:-2])
