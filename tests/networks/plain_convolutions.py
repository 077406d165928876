"""Convolutional layers of trajectories x [H, C] in float64 numpy, from their formulas, one output token at a time."""

from typing import Any

import numpy as np
from plain_layers import dense, sines


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.log1p(np.exp(x)))


def conv(params: Any, x: np.ndarray, stride: int = 1) -> np.ndarray:
    """y_j = b + sum_k x_{j stride + k - half} w_k, zeros outside; kernels [K, I, O] of odd K."""
    size = len(params["kernel"])
    padded = np.pad(x, ((size // 2, size // 2), (0, 0)))
    starts = range(0, len(x), stride)
    return np.stack([np.einsum("ki,kio->o", padded[j : j + size], params["kernel"]) for j in starts]) + params["bias"]


def conv_transpose(params: Any, x: np.ndarray) -> np.ndarray:
    """PyTorch's of kernel 4, stride 2, padding 1: y_j = b + sum x_i w_k over 2 i + k - 1 = j; stored as w reversed."""
    kernel = params["kernel"][::-1]
    y = np.tile(params["bias"], (2 * len(x), 1))
    for i in range(len(x)):
        for k in range(4):
            if 0 <= 2 * i + k - 1 < len(y):
                y[2 * i + k - 1] += x[i] @ kernel[k]
    return y


def group_norm(params: Any, x: np.ndarray, groups: int) -> np.ndarray:
    """Each group of neighbouring channels over the horizon to mean 0 and variance 1."""
    parts = []
    for part in np.split(x, groups, axis=1):
        parts.append((part - part.mean()) / np.sqrt(part.var() + 1e-5))
    return params["scale"] * np.concatenate(parts, axis=1) + params["bias"]


def conv_block(params: Any, x: np.ndarray, groups: int = 8) -> np.ndarray:
    return mish(group_norm(params["GroupNorm_0"], conv(params["Conv_0"], x), groups))


def residual_block(params: Any, x: np.ndarray, features: np.ndarray, groups: int = 8) -> np.ndarray:
    hidden = conv_block(params["ConvBlock_0"], x, groups) + dense(params["Dense_0"], mish(features))
    hidden = conv_block(params["ConvBlock_1"], hidden, groups)
    return hidden + (dense(params["skip"], x) if "skip" in params else x)


def linear_attention(params: Any, x: np.ndarray) -> np.ndarray:
    """Four heads of 32, one after the other; kernel columns are q, k, v, and heads within each."""
    centred = x - x.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    normed = params["LayerNorm_0"]["scale"] * normed + params["LayerNorm_0"]["bias"]
    q, k, v = np.split(normed @ params["Dense_0"]["kernel"], 3, axis=1)
    heads = []
    for head in range(4):
        part = slice(32 * head, 32 * head + 32)
        weight = np.exp(k[:, part]) / np.exp(k[:, part]).sum(axis=0)  # over positions
        context = sum(np.outer(weight[h], v[h, part]) for h in range(len(x)))
        heads.append(q[:, part] / np.sqrt(32) @ context)
    return x + dense(params["Dense_1"], np.concatenate(heads, axis=1))


def token_features(params: Any, t: np.ndarray, width: int, conds: Any = ()) -> np.ndarray:
    """[H, F] for t [H]; conds has (values, keep) of each group."""
    time = [dense(params["Dense_1"], mish(dense(params["Dense_0"], sines(level, width)))) for level in t]
    if not conds:
        return np.stack(time)
    total = np.zeros(width)
    for group, (values, keep) in enumerate(conds):
        first, second, third = (params[f"Dense_{2 + 3 * group + layer}"] for layer in range(3))
        total = total + keep * dense(third, mish(dense(second, mish(dense(first, values)))))
    return np.stack([np.concatenate([one, total]) for one in time])
