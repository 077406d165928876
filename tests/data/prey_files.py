"""Files as PyTorch wrote them before it used zip archives, without PyTorch: a prey of OMAR's layout, and attacks."""

import collections
import io
import pickle
import struct

import numpy as np

from jaxdiff.data.sources import prey_file

SHAPES = {
    **dict.fromkeys(("in_fn.weight", "in_fn.bias", "in_fn.running_mean", "in_fn.running_var"), ("n",)),
    **{"fc1.weight": (64, "n"), "fc1.bias": (64,), "fc2.weight": (64, 64), "fc2.bias": (64,)},
    **{"fc3.weight": (2, 64), "fc3.bias": (2,)},
}


class Named:
    """Pickled as a global of a module that need not be there."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Storage:
    """Pickled as a reference to numbers that come later."""

    def __init__(self, key, array):
        self.key, self.array = key, array


class Pickler(pickle._Pickler):  # the one in Python, which can be told how to write a Named
    """Writes what PyTorch's legacy format holds."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_named(self, named):
        self.write(pickle.GLOBAL + f"{named.module}\n{named.name}\n".encode())
        self.memoize(named)

    dispatch[Named] = save_named

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            kind = FLOATS if thing.array.dtype == np.float32 else LONGS
            return ("storage", kind, thing.key, "cpu", thing.array.size, None)
        return None


FLOATS, LONGS = Named("torch", "FloatStorage"), Named("torch", "LongStorage")
REBUILD = Named("torch._utils", "_rebuild_tensor_v2")


def dumped(thing):
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(thing)
    return file.getvalue()


class Tensor:
    """A whole array as PyTorch pickles it."""

    def __init__(self, key, array, shape=None):
        self.storage, self.shape = Storage(key, array.ravel()), shape or array.shape

    def __reduce_ex__(self, protocol):
        stride = tuple(int(np.prod(self.shape[k + 1 :])) for k in range(len(self.shape)))
        # `Named` stands for a function that PyTorch has and this test has not.
        return CALLED, (self.storage, 0, tuple(self.shape), stride, False, collections.OrderedDict())


def CALLED(*args):
    raise AssertionError(f"only its name is written, it is never called: {args}")


def save_called(pickler, function):
    if function is CALLED:
        pickler.save(REBUILD)
    else:
        pickle._Pickler.save_global(pickler, function)


Pickler.dispatch[type(CALLED)] = save_called


def weights(width, seed=0):
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal(size=[width if n == "n" else n for n in shape]).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def container(found, storages, *, magic=prey_file.MAGIC, protocol=prey_file.PROTOCOL, little_endian=True):
    """The bytes of a legacy PyTorch file."""
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    content = b"".join(dumped(part) for part in (magic, protocol, system, found, list(storages)))
    for array in storages.values():
        content += struct.pack("<q", array.size) + array.tobytes()
    return content


def prey_of(arrays, **extras):
    """What OMAR saved: four agents, of which only the last one's policy matters."""
    counted = {**arrays, "in_fn.num_batches_tracked": np.array(7, np.int64)}
    policy = collections.OrderedDict((name, Tensor(str(k), array)) for k, (name, array) in enumerate(counted.items()))
    other = {"policy": collections.OrderedDict()}
    found = {"init_dict": {"lr": 0.01}, "agent_params": [other, other, other, {"policy": policy, **extras}]}
    return found, {str(k): array.ravel() for k, array in enumerate(counted.values())}
