"""A study cut into groups that share a program, groups cut into packs that fit the device, lanes put side by side.

A study is a list of points, flat dicts of dotted keys; see `experiments/`. A point that only touches `hparams.*` and
`seed` changes numbers inside a program; anything else changes the program, and members that agree on it form a group.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np

from jaxdiff.types import PyTree

MODES = ("vmap", "map", "shard", "pmap", "data")
# Settings that decide how a run is organised or looked at, not what it computes.
ORGANISATION = ("chunk", "eval_interval", "eval_episodes", "record_episodes", "checkpoint_interval")


@dataclasses.dataclass(frozen=True)
class Member:
    """One setting and seed of a study."""

    id: str  # content hash of the resolved setting and seed: the same member keeps it in every study
    label: str  # the setting without its seed
    algorithm: str
    overrides: Mapping[str, Any]
    seed: int
    config: Mapping[str, Any]  # resolved, nested


@dataclasses.dataclass(frozen=True)
class Pack:
    """Members that run side by side in one program."""

    id: str
    members: tuple[Member, ...]


def is_traced(key: str) -> bool:
    """Whether a dotted key is a number inside a program, rather than a choice of program."""
    return key == "seed" or key.startswith("hparams.")


def content_hash(value: Any) -> str:
    """Ten hex digits of a JSON value's content, the same in every process and session."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:10]


def make_member(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> Member:
    """A member from its resolved config and the overrides that made it.

    The id covers what decides the result (task, data, algorithm, settings, seed, batch size) and not how the run is
    organised or looked at (chunk length, intervals, number of evaluation episodes).
    """
    decisive = [key for key in config if key not in ORGANISATION]
    shown = {key: value for key, value in overrides.items() if key not in ("seed", "algorithm", *ORGANISATION)}
    swept = [f"{key.split('.')[-1]}={_brief(value)}" for key, value in shown.items()]
    return Member(
        id=content_hash({key: config.get(key) for key in decisive}),
        label=" ".join([config["algorithm"], *swept]),
        algorithm=config["algorithm"],
        overrides=dict(overrides),
        seed=int(config["seed"]),
        config=config,
    )


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def group_id(member: Member) -> str:
    """Hash of everything in the member's config that is not a number inside its program."""
    return program_hash(member.config)


def program_hash(config: Mapping[str, Any]) -> str:
    """Hash of a resolved config without its hyperparameters and its seed: what configs of one program share."""
    return content_hash({key: value for key, value in config.items() if key not in ("hparams", "seed")})


def group_members(members: Iterable[Member]) -> list[tuple[Member, ...]]:
    """Members that can share a program, in order of first appearance. Repeated members are kept once."""
    groups: dict[str, dict[str, Member]] = {}
    for member in members:
        groups.setdefault(group_id(member), {}).setdefault(member.id, member)
    return [tuple(group.values()) for group in groups.values()]


def split_packs(group: Sequence[Member], width: int) -> list[Pack]:
    """Cuts a group into as few packs of at most `width` members as it takes, all of one size but the last.

    Raises:
      ValueError: width < 1.
    """
    if width < 1:
        raise ValueError(f"pack width {width}; a pack holds at least 1 member.")
    count = -(-len(group) // width)
    size = -(-len(group) // count)
    slices = [tuple(group[i : i + size]) for i in range(0, len(group), size)]
    return [Pack(content_hash([m.id for m in members]), members) for members in slices]


def stack(trees: Sequence[PyTree]) -> PyTree:
    """L pytrees of scalars or arrays as one with a leading lane axis, on the host."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def lane_of(tree: PyTree, index: int) -> PyTree:
    """Lane `index` of a stacked pytree."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def lane_mesh(devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """All devices, those of other processes too, on one axis, "lanes"; in mode data it is the batch that they share."""
    devices = list(devices or jax.devices())
    return jax.make_mesh((len(devices),), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def lane_count(num_members: int, mode: str, num_devices: int) -> int:
    """Lanes a program needs for so many members: sharded modes want a multiple of the devices."""
    return -(-num_members // num_devices) * num_devices if mode in ("shard", "pmap") else num_members


def over_lanes(
    function: Callable[..., PyTree], mode: str, *, donate: bool = False, devices: Sequence[jax.Device] | None = None
) -> Callable[..., PyTree]:
    """Compiles a function of one lane for L lanes: (lane, *shared) -> out becomes (lanes [L], *shared) -> outs [L].

    Every mode computes the same numbers up to rounding; which is fastest is for a probe to say.

      vmap   one batched program: lanes are nearly free where the device has room to spare
      map    lanes one after another inside one program: for a device that one lane fills
      shard  lanes spread over the devices by `jax.shard_map`, no collectives; L a multiple of the devices
      pmap   the same through `jax.pmap`, for those who want it
      data   lanes one after another on all devices at once, which share each batch: for a lane too slow on one device.
             The function says what is shared, by `split_batch`; results are whole on every device

    Inside one device, shard and pmap take their lanes by vmap on an accelerator and one by one on a CPU.

    Args:
      function: pure; its first argument is a lane, the others are shared by all lanes.
      mode: one of MODES.
      donate: the lanes' buffers are given up for the result.
      devices: for the sharded modes; None for all.

    Raises:
      ValueError: unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"lanes={mode!r}; allowed: auto, {', '.join(MODES)}.")
    donated = (0,) if donate else ()

    def by_vmap(lanes: PyTree, *shared: PyTree) -> PyTree:
        return jax.vmap(lambda lane: function(lane, *shared))(lanes)

    def by_map(lanes: PyTree, *shared: PyTree) -> PyTree:
        return jax.lax.map(lambda lane: function(lane, *shared), lanes)

    if mode in ("vmap", "map"):
        return jax.jit(by_vmap if mode == "vmap" else by_map, donate_argnums=donated)
    mesh = lane_mesh(devices)
    if mode == "data":
        return jax.jit(by_map, donate_argnums=donated, out_shardings=_everywhere(mesh))
    inner = by_map if mesh.devices.flat[0].platform == "cpu" else by_vmap
    if mode == "pmap":
        return _over_devices(inner, list(mesh.devices.flat), donated)
    split, whole = jax.sharding.PartitionSpec("lanes"), jax.sharding.PartitionSpec()

    def sharded(lanes: PyTree, *shared: PyTree) -> PyTree:
        specs = (split, *[whole] * len(shared))
        # check_vma off: the lanes never meet, and the check does not know every primitive inside `function`.
        return jax.shard_map(inner, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(lanes, *shared)

    return jax.jit(sharded, donate_argnums=donated)


def _over_devices(
    inner: Callable[..., PyTree], devices: list[jax.Device], donated: tuple[int, ...]
) -> Callable[..., PyTree]:
    """pmap over [D, L / D], with the lane axis split and joined around it."""
    count = len(devices)

    def call(lanes: PyTree, *shared: PyTree) -> PyTree:
        axes = (0, *[None] * len(shared))
        if len(shared) not in compiled:
            compiled[len(shared)] = jax.pmap(inner, in_axes=axes, devices=devices, donate_argnums=donated)
        fold = jax.tree.map(lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:]), lanes)
        out = compiled[len(shared)](fold, *shared)
        return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), out)

    compiled: dict[int, Callable[..., PyTree]] = {}
    return call


def place(lanes: PyTree, mode: str, devices: Sequence[jax.Device] | None = None) -> PyTree:
    """Puts stacked lanes where the mode wants them: on the device, split over the devices or, for data, on each."""
    sharding = lane_sharding(mode, devices)
    if sharding is None:
        # A device by name: restored lanes have one, and a program is compiled anew for lanes that differ in this.
        return jax.device_put(lanes, (devices or jax.local_devices())[0])
    return _put(lanes, sharding)


def lane_sharding(mode: str, devices: Sequence[jax.Device] | None = None) -> jax.sharding.NamedSharding | None:
    """How the mode lays out stacked lanes over several devices; None for modes of one device."""
    if mode in ("vmap", "map"):
        return None
    mesh = lane_mesh(devices)
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("lanes"))
    return _everywhere(mesh) if mode == "data" else rows


def replicate(tree: PyTree, mode: str, devices: Sequence[jax.Device] | None = None) -> PyTree:
    """Puts what all lanes share on the device or, in the modes of several devices, one copy on each."""
    return jax.device_put(tree) if mode in ("vmap", "map") else _put(tree, _everywhere(lane_mesh(devices)))


def split_batch(batch_size: int, devices: Sequence[jax.Device] | None = None) -> Callable[[PyTree], PyTree]:
    """Batch -> the same batch, each device holding its share of the B rows; for inside a program of mode data.

    The compiler then divides the work on the batch, and adds up over the devices what is summed over it.

    Raises:
      ValueError: batch_size is no multiple of the devices.
    """
    mesh = lane_mesh(devices)
    if batch_size % mesh.size:
        near = max(batch_size // mesh.size, 1) * mesh.size
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of the {mesh.size} devices that share it with lanes=data; "
            f"try {near}."
        )
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("lanes"))
    return lambda batch: jax.lax.with_sharding_constraint(batch, rows)


def _everywhere(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _put(tree: PyTree, sharding: jax.sharding.NamedSharding) -> PyTree:
    """`jax.device_put`; where other processes have devices, each gives its own devices their part of what all have."""

    def give(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            same = leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
            return leaf if same else jax.jit(lambda x: x, out_shardings=sharding)(leaf)
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(give(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        here = np.asarray(leaf)
        return jax.make_array_from_callback(here.shape, sharding, lambda index: here[index])

    return jax.device_put(tree, sharding) if sharding.is_fully_addressable else jax.tree.map(give, tree)


def choose_mode(seconds: Mapping[str, float]) -> str:
    """The fastest of the measured modes; vmap, the simplest program, where another is not at least 5 % faster."""
    best = min(seconds, key=lambda mode: seconds[mode])
    return "vmap" if "vmap" in seconds and seconds["vmap"] <= 1.05 * seconds[best] else best


def candidate_modes(num_members: int, num_devices: int) -> tuple[str, ...]:
    """Modes worth probing: a lone member or a lone device leaves fewer."""
    modes = ["vmap"] + (["map"] if num_members > 1 else []) + (["shard"] if num_devices > 1 and num_members > 1 else [])
    return tuple(modes)
