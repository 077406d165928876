"""What each layer of a deep network weighs and costs, so that it can be cut in two.

Layers are counted from 1. What is sent when layers 1 .. c run on the vehicle is the input of layer c + 1. Megabytes are
1e6 bytes, work is in GFLOP = 1e9 floating point operations.
"""

from collections.abc import Sequence
import dataclasses
import math

from jaxdiff.suggest import unknown_name

KINDS = ("conv", "pool", "fc", "block")
CONVENTIONS = ("lit", "std")
BYTES_PER_NUMBER = 4  # float32


@dataclasses.dataclass(frozen=True)
class Layer:
    """One place where a network may be cut: a layer, or a block whose inside never is.

    `block` is ResNet's basic block: two 3x3 convolutions with padding 1, the first with the stride, and a 1x1
    convolution on the skip path where the shape changes.
    """

    name: str
    kind: str  # one of KINDS
    input: tuple[int, ...]  # (height, width, channels); fc: (numbers,), a map before it being flattened
    out: int  # channels, or numbers of an fc layer
    kernel: int = 0  # side of the window of conv and pool
    stride: int = 1
    pad: int = 0
    free_in_lit: bool = False  # no work in the "lit" convention: both poolings of ResNet18


@dataclasses.dataclass(frozen=True)
class Profile:
    """A network as the offloading problem sees it; entry l - 1 belongs to layer l."""

    name: str
    layers: tuple[str, ...]
    data_mb: tuple[float, ...]  # size of the layer's input
    work_gflop: tuple[float, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.layers), len(self.data_mb), len(self.work_gflop)}
        if sizes == {0} or len(sizes) > 1:
            raise ValueError(
                f"profile {self.name!r} has {len(self.layers)} layers, {len(self.data_mb)} sizes and "
                f"{len(self.work_gflop)} works; give one of each per layer, and at least one layer."
            )
        if not all(math.isfinite(size) and size > 0 for size in self.data_mb):
            raise ValueError(f"profile {self.name!r}: data_mb={self.data_mb} must be finite and above 0 (1e6 bytes).")
        if not all(math.isfinite(work) and work >= 0 for work in self.work_gflop) or not sum(self.work_gflop):
            raise ValueError(
                f"profile {self.name!r}: work_gflop={self.work_gflop} must be finite, at least 0, and not 0 altogether."
            )

    @property
    def depth(self) -> int:
        return len(self.layers)


def make_profile(name: str, layers: Sequence[Layer], convention: str = "lit") -> Profile:
    """Sizes and works of a chain of layers.

    With H, W, C the input's height, width and channels, c the channels that come out and k the side of the window:

        conv    2 h w (C k**2 + 1) c                  fc    (2 U_in - 1) U_out
        pool    "lit": as conv;  "std": H_out W_out C k**2
        block   the sum over its convolutions, each with sizes of its own
        data    4 H W C bytes, fc: 4 U_in bytes       H_out = floor((H + 2 pad - k) / stride) + 1

    "lit" takes h, w = H, W as the paper prints it; "std" takes h, w = H_out, W_out as a convolution is usually counted.
    Activations, normalisation, residual sums and dropout are not counted.

    Args:
      name: what the network is called.
      layers: in order; at least one.
      convention: one of CONVENTIONS.

    Raises:
      KeyError: an unknown convention or kind of layer.
      ValueError: sizes that are not positive, or a layer whose input is not what the layer before puts out.

    Reference: Liu et al. 2025, arXiv:2406.06986, system model (formulas of layers); the paper prints no tables.
    """
    if convention not in CONVENTIONS:
        raise unknown_name("convention of counting", convention, CONVENTIONS)
    for index, layer in enumerate(layers, start=1):
        _check(index, layer)
    for index, (before, layer) in enumerate(zip(layers, layers[1:], strict=False), start=2):
        _check_joint(index, before, layer)
    return Profile(
        name=name,
        layers=tuple(layer.name for layer in layers),
        data_mb=tuple(BYTES_PER_NUMBER * math.prod(layer.input) / 1e6 for layer in layers),
        work_gflop=tuple(_work(layer, convention) / 1e9 for layer in layers),
    )


def standard_profiles(convention: str = "lit") -> tuple[Profile, ...]:
    """AlexNet, ResNet18 and VGG16 for images of 224 x 224 x 3."""
    return tuple(make_profile(name, layers, convention) for name, layers in ARCHITECTURES.items())


def _out(layer: Layer) -> tuple[int, ...]:
    """The shape that a layer puts out."""
    if layer.kind == "fc":
        return (layer.out,)
    kernel, pad = (3, 1) if layer.kind == "block" else (layer.kernel, layer.pad)
    return (*((side + 2 * pad - kernel) // layer.stride + 1 for side in layer.input[:2]), layer.out)


def _work(layer: Layer, convention: str) -> int:
    """Floating point operations of a layer, see `make_profile`."""
    if layer.kind == "fc":
        return (2 * layer.input[0] - 1) * layer.out
    if layer.free_in_lit and convention == "lit":
        return 0
    channels, area_out = layer.input[2], math.prod(_out(layer)[:2])
    area = math.prod(layer.input[:2]) if convention == "lit" else area_out
    if layer.kind == "pool" and convention == "std":
        return area_out * channels * layer.kernel**2
    if layer.kind != "block":
        return 2 * area * (channels * layer.kernel**2 + 1) * layer.out
    projected = layer.stride != 1 or channels != layer.out
    skip = 2 * area * (channels + 1) * layer.out if projected else 0
    return 2 * area * (9 * channels + 1) * layer.out + 2 * area_out * (9 * layer.out + 1) * layer.out + skip


def _check(index: int, layer: Layer) -> None:
    where = f"layer {index} {layer.name!r}"
    if layer.kind not in KINDS:
        raise unknown_name(f"kind of {where}:", layer.kind, KINDS)
    rank = 1 if layer.kind == "fc" else 3
    if len(layer.input) != rank:
        shape = "(numbers,)" if rank == 1 else "(height, width, channels)"
        raise ValueError(f"{where}: input={layer.input} of kind {layer.kind!r} must be {shape}.")
    sizes = (*layer.input, layer.out, layer.stride, *((layer.kernel,) if layer.kind in ("conv", "pool") else ()))
    if not all(isinstance(size, int) and size > 0 for size in sizes) or layer.pad < 0:
        raise ValueError(
            f"{where}: input={layer.input}, out={layer.out}, kernel={layer.kernel}, stride={layer.stride} must be "
            f"whole numbers of at least 1, pad={layer.pad} of at least 0."
        )
    if layer.kind == "block" and (layer.kernel, layer.pad) not in ((0, 0), (3, 1)):
        raise ValueError(
            f"{where}: a block's convolutions are 3x3 with pad 1, kernel={layer.kernel} and pad={layer.pad} were "
            "given; leave both out, or write the block as one layer of a Profile with numbers of your own."
        )
    if layer.kind == "pool" and layer.out != layer.input[2]:
        raise ValueError(f"{where}: a pooling keeps its {layer.input[2]} channels, out={layer.out} was given.")
    if min(_out(layer)) < 1:
        raise ValueError(
            f"{where}: a window of {layer.kernel} does not fit into {layer.input} padded by {layer.pad}; "
            "take a smaller kernel or a larger input."
        )


def _check_joint(index: int, before: Layer, layer: Layer) -> None:
    """A layer takes what the one before puts out, flattened for fc."""
    put = _out(before)
    if layer.input == put or (layer.kind == "fc" and layer.input[0] == math.prod(put)):
        return
    takes, puts = (" x ".join(str(side) for side in shape) for shape in (layer.input, put))
    if layer.kind == "fc":
        takes, puts = str(layer.input[0]), str(math.prod(put))
    raise ValueError(
        f"layer {index} {layer.name!r} takes {takes} numbers and layer {index - 1} {before.name!r} puts out {puts}: "
        "a layer between them is missing, or one of the sizes is wrong."
    )


def _conv(name: str, side: int, channels: int, out: int, window: tuple[int, int, int] = (3, 1, 1)) -> Layer:
    """A convolution of a square map; `window` is (kernel, stride, pad)."""
    return Layer(name, "conv", (side, side, channels), out, *window)


def _pool(name: str, side: int, channels: int, window: tuple[int, int, int], free_in_lit: bool = False) -> Layer:
    return Layer(name, "pool", (side, side, channels), channels, *window, free_in_lit=free_in_lit)


def _block(name: str, side: int, channels: int, out: int, stride: int = 1) -> Layer:
    return Layer(name, "block", (side, side, channels), out, 3, stride, 1)


def _fc(name: str, numbers: int, out: int) -> Layer:
    return Layer(name, "fc", (numbers,), out)


# The single-tower AlexNet.
_ALEXNET = (
    _conv("conv1", 224, 3, 64, (11, 4, 2)),
    _pool("pool1", 55, 64, (3, 2, 0)),
    _conv("conv2", 27, 64, 192, (5, 1, 2)),
    _pool("pool2", 27, 192, (3, 2, 0)),
    _conv("conv3", 13, 192, 384),
    _conv("conv4", 13, 384, 256),
    _conv("conv5", 13, 256, 256),
    _pool("pool5", 13, 256, (3, 2, 0)),
    _fc("fc6", 9216, 4096),
    _fc("fc7", 4096, 4096),
    _fc("fc8", 4096, 1000),
)
# Cut between blocks only, so that one tensor crosses the cut.
_RESNET18 = (
    _conv("conv1", 224, 3, 64, (7, 2, 3)),
    _pool("maxpool", 112, 64, (3, 2, 1), free_in_lit=True),
    _block("block1_1", 56, 64, 64),
    _block("block1_2", 56, 64, 64),
    _block("block2_1", 56, 64, 128, 2),
    _block("block2_2", 28, 128, 128),
    _block("block3_1", 28, 128, 256, 2),
    _block("block3_2", 14, 256, 256),
    _block("block4_1", 14, 256, 512, 2),
    _block("block4_2", 7, 512, 512),
    _pool("avgpool", 7, 512, (7, 1, 0), free_in_lit=True),
    _fc("fc", 512, 1000),
)
_VGG16 = (
    _conv("conv1_1", 224, 3, 64),
    _conv("conv1_2", 224, 64, 64),
    _pool("pool1", 224, 64, (2, 2, 0)),
    _conv("conv2_1", 112, 64, 128),
    _conv("conv2_2", 112, 128, 128),
    _pool("pool2", 112, 128, (2, 2, 0)),
    _conv("conv3_1", 56, 128, 256),
    _conv("conv3_2", 56, 256, 256),
    _conv("conv3_3", 56, 256, 256),
    _pool("pool3", 56, 256, (2, 2, 0)),
    _conv("conv4_1", 28, 256, 512),
    _conv("conv4_2", 28, 512, 512),
    _conv("conv4_3", 28, 512, 512),
    _pool("pool4", 28, 512, (2, 2, 0)),
    _conv("conv5_1", 14, 512, 512),
    _conv("conv5_2", 14, 512, 512),
    _conv("conv5_3", 14, 512, 512),
    _pool("pool5", 14, 512, (2, 2, 0)),
    _fc("fc6", 25088, 4096),
    _fc("fc7", 4096, 4096),
    _fc("fc8", 4096, 1000),
)
ARCHITECTURES: dict[str, tuple[Layer, ...]] = {"alexnet": _ALEXNET, "resnet18": _RESNET18, "vgg16": _VGG16}
