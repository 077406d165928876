"""Diffuser's U-Net and its samplers in plain PyTorch, eager, for `plan_speed` to time beside ours.

Modules over [B, channels, H] and a Python loop over network calls, as one runs such a model in PyTorch; coefficients
are Python numbers, worked out beforehand from the equations and not from `jaxdiff.diffusion`.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GROUPS = 8

Network = Callable[[Tensor, Tensor], Tensor]  # (x [B, H, D], t [B]) -> [B, H, D]


class ConvBlock(nn.Sequential):
    """mish(GroupNorm(conv(x)))."""

    def __init__(self, inputs: int, channels: int, kernel_size: int) -> None:
        conv = nn.Conv1d(inputs, channels, kernel_size, padding=kernel_size // 2)
        super().__init__(conv, nn.GroupNorm(GROUPS, channels), nn.Mish())


class ResidualBlock(nn.Module):
    """skip(x) + second(first(x) + told(features))."""

    def __init__(self, inputs: int, channels: int, kernel_size: int, features: int) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, channels, kernel_size)
        self.second = ConvBlock(channels, channels, kernel_size)
        self.told = nn.Sequential(nn.Mish(), nn.Linear(features, channels))
        self.skip = nn.Identity() if inputs == channels else nn.Conv1d(inputs, channels, 1)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.second(self.first(x) + self.told(features)[:, :, None]) + self.skip(x)


class Unet(nn.Module):
    """The network of `jaxdiff.networks.TemporalUnet` without attention and conditions: x [B, H, D], t [B] -> [B, H, D].

    Reference: Janner et al. 2022, arXiv:2205.09991, appendix C.
    """

    def __init__(self, dim: int, width: int, mults: tuple[int, ...], kernel_size: int) -> None:
        super().__init__()
        channels = [width * mult for mult in mults]
        inner = channels[:-1][::-1]  # where the way up ends at every level
        self.width, self.num_levels = width, len(mults)
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))

        def pair(inputs: int, outputs: int) -> nn.ModuleList:
            sizes = ((inputs, outputs), (outputs, outputs))
            return nn.ModuleList(ResidualBlock(*size, kernel_size, width) for size in sizes)

        self.falling = nn.ModuleList(map(pair, [dim, *channels[:-1]], channels))
        self.middle = pair(channels[-1], channels[-1])
        self.rising = nn.ModuleList(map(pair, [2 * size for size in channels[:0:-1]], inner))
        self.downs = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in channels[:-1])
        self.ups = nn.ModuleList(nn.ConvTranspose1d(size, size, 4, stride=2, padding=1) for size in inner)
        self.end = nn.Sequential(ConvBlock(width * mults[0], width, kernel_size), nn.Conv1d(width, dim, 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        features = self.time(self.embed(t))
        z, kept = x.transpose(1, 2), []
        for i, blocks in enumerate(self.falling):
            z = through(blocks, z, features)
            kept.append(z)
            z = self.downs[i](z) if i < self.num_levels - 1 else z
        z = through(self.middle, z, features)
        for blocks, up in zip(self.rising, self.ups, strict=True):
            z = up(through(blocks, torch.cat([z, kept.pop()], dim=1), features))
        return self.end(z).transpose(1, 2)

    def embed(self, t: Tensor) -> Tensor:
        """Sines and cosines of t at geometric frequencies, [B] -> [B, width]."""
        half = self.width // 2
        steps = torch.arange(half, device=t.device, dtype=t.dtype)
        angle = t[:, None] * torch.exp(-math.log(1e4) / (half - 1) * steps)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def through(blocks: nn.ModuleList, z: Tensor, features: Tensor) -> Tensor:
    """One block after another."""
    for block in blocks:
        z = block(z, features)
    return z


@torch.no_grad()
def copy_weights(net: Unet, variables: Mapping[str, Any]) -> None:
    """Writes the parameters of the Flax U-Net of equal sizes into `net`.

    Kernels [m, in, out] become [out, in, m], and those of transposed convolutions, whose m runs the other way round,
    [in, out, m].

    Raises:
      KeyError, ValueError: parameters of another network.
    """
    tree = variables["params"]
    for i, layer in ((0, net.time[0]), (1, net.time[2])):
        put(layer, tree["TokenFeatures_0"][f"Dense_{i}"])
    blocks = [block for pair in (*net.falling, net.middle, *net.rising) for block in pair]
    for i, block in enumerate(blocks):
        own = tree[f"ResidualBlock_{i}"]
        put_block(block.first, own["ConvBlock_0"])
        put_block(block.second, own["ConvBlock_1"])
        put(block.told[1], own["Dense_0"])
        if not isinstance(block.skip, nn.Identity):
            put(block.skip, own["skip"])
    for i, down in enumerate(net.downs):
        put(down, tree[f"Conv_{i}"])
    for i, up in enumerate(net.ups):
        put(up, tree[f"ConvTranspose_{i}"])
    put_block(net.end[0], tree["ConvBlock_0"])
    put(net.end[1], tree["Dense_0"])


def put_block(block: ConvBlock, own: Mapping[str, Any]) -> None:
    """Parameters of a `ConvBlock`."""
    put(block[0], own["Conv_0"])
    put(block[1], {"kernel": own["GroupNorm_0"]["scale"], "bias": own["GroupNorm_0"]["bias"]})


def put(layer: Any, own: Mapping[str, Any]) -> None:
    """Parameters of one layer, in PyTorch's order of axes."""
    kernel = np.asarray(own["kernel"])
    if isinstance(layer, nn.ConvTranspose1d):
        kernel = kernel[::-1].transpose(1, 2, 0)
    else:
        kernel = kernel.T
        kernel = kernel[..., None] if isinstance(layer, nn.Conv1d) and kernel.ndim == 2 else kernel
    for parameter, value in ((layer.weight, kernel), (layer.bias, np.asarray(own["bias"]))):
        if tuple(parameter.shape) != value.shape:
            raise ValueError(f"{layer} has parameters of shape {tuple(parameter.shape)}, and was given {value.shape}.")
        parameter.copy_(torch.from_numpy(np.array(value)))


def cosine_alpha_bar(num_levels: int) -> np.ndarray:
    """alpha_bar [N + 1] of the cosine schedule with betas up to 0.999, 1 first. Reference: arXiv:2102.09672, eq. 17."""
    angle = (np.arange(num_levels + 1) / num_levels + 0.008) / 1.008 * math.pi / 2
    beta = 1.0 - (np.cos(angle[1:]) / np.cos(angle[:-1])) ** 2
    return np.concatenate([[1.0], np.cumprod(1.0 - np.minimum(beta, 0.999))])


def predict(net: Network, x: Tensor, t: float, ends: Tensor) -> Tensor:
    """x0_hat in [-1, 1] of a plan whose first and last observations `ends` [B, 2, O] are known; written into x too."""
    hold(x, ends)
    return hold(net(x, torch.full((x.shape[0],), t, device=x.device)).clamp(-1.0, 1.0), ends)


def hold(x: Tensor, ends: Tensor) -> Tensor:
    """Writes the known observations, the last numbers of the first and of the last step, into x and returns it."""
    x[:, 0, -ends.shape[-1] :], x[:, -1, -ends.shape[-1] :] = ends[:, 0], ends[:, 1]
    return x


@torch.no_grad()
def ddpm(net: Network, x: Tensor, ends: Tensor, num_levels: int, noise: float, generator: torch.Generator) -> Tensor:
    """Ancestral sampling through all N levels: x' = a x + b x0_hat + noise c z, c**2 the posterior's variance.

    Reference: Ho et al. 2020, arXiv:2006.11239, eq. 7.
    """
    x, alpha_bar = x.clone(), cosine_alpha_bar(num_levels)
    for i in reversed(range(num_levels)):
        before, now = alpha_bar[i], alpha_bar[i + 1]
        alpha = now / before
        x0_hat = predict(net, x, float(i), ends)
        rest = (1.0 - before) / (1.0 - now)
        x = float(rest * math.sqrt(alpha)) * x + float((1.0 - alpha) * math.sqrt(before) / (1.0 - now)) * x0_hat
        if i > 0:
            z = torch.randn(x.shape, generator=generator, device=x.device)
            x = x + noise * math.sqrt((1.0 - alpha) * rest) * z
    return hold(x, ends)


@torch.no_grad()
def dpmpp_2m(net: Network, x: Tensor, ends: Tensor, num_levels: int, num_calls: int) -> Tensor:
    """DPM-Solver++(2M) over K equal steps in t, the last one to clean data: x' = sigma'/sigma x + alpha' (1 - e^-h) D.

    D = x0_hat + (x0_hat - the previous one) h / (2 h_previous), or x0_hat in the first and in the last step. Between
    the N levels log alpha is linear in t.

    Reference: Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    t = np.linspace(1.0, 0.0, num_calls + 1)
    log_alpha = np.interp(t * num_levels, np.arange(num_levels + 1), 0.5 * np.log(cosine_alpha_bar(num_levels)))
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2.0 * log_alpha))
    x, last, h_last = x.clone(), None, 0.0
    for k in range(num_calls):
        x0_hat = predict(net, x, float(num_levels * t[k] - 1.0), ends)
        if k == num_calls - 1:
            x = x0_hat
            break
        h = float(log_alpha[k + 1] - np.log(sigma[k + 1]) - log_alpha[k] + np.log(sigma[k]))
        slope = x0_hat if last is None else x0_hat + h / (2.0 * h_last) * (x0_hat - last)
        x = float(sigma[k + 1] / sigma[k]) * x - float(alpha[k + 1] * math.expm1(-h)) * slope
        last, h_last = x0_hat, h
    return hold(x, ends)


class Side:
    """The network with our parameters on a device, and the samplers that call it.

    Raises:
      KeyError, ValueError: parameters of another network, see `copy_weights`.
    """

    def __init__(self, config: Any, params: Mapping[str, Any], threads: int, device: str = "cpu") -> None:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32 = False
        dim = np.shape(params["params"]["Dense_0"]["bias"])[0]
        net = Unet(dim, config.width, config.mults, config.kernel_size)
        copy_weights(net, params)
        self.net, self.dim, self.device = net.to(device).eval(), dim, device

    def tensor(self, array: Any) -> Tensor:
        """A copy in float32 on the device."""
        return torch.from_numpy(np.array(array, np.float32)).to(self.device)

    def compiled(self) -> Network:
        """The network around which `torch.compile` stands; it compiles when it is first called."""
        return torch.compile(self.net)

    @torch.no_grad()
    def forward(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """One call, x [B, H, D] and t [B] -> [B, H, D]."""
        return self.net(self.tensor(x), self.tensor(t)).cpu().numpy()

    def sampler(self, config: Any, ends: np.ndarray, net: Network) -> Callable[..., np.ndarray]:
        """draw(seed, temperature=1, x_T=None) -> plans [B, H, D] on the host; without x_T it draws its own."""
        held, shape = self.tensor(ends), (len(ends), config.horizon, self.dim)
        generator = torch.Generator(self.device)

        def draw(seed: int, temperature: float = 1.0, x_T: np.ndarray | None = None) -> np.ndarray:
            generator.manual_seed(seed)
            if x_T is None:
                x = torch.randn(shape, generator=generator, device=self.device)
            else:
                x = self.tensor(x_T)
            if config.sampler == "ddpm":
                return ddpm(net, x, held, config.num_levels, temperature, generator).cpu().numpy()
            return dpmpp_2m(net, x, held, config.num_levels, config.num_steps).cpu().numpy()

        return draw
