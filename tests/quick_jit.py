"""`jax.jit` for tests, without LLVM's optimisation: half the compile time, and enough for tiny arrays."""

from collections.abc import Callable
from typing import Any

import jax


def quick_jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **kwargs)
