"""Shared by every test: CPU, strict rank promotion, a persistent compilation cache where the environment names one."""

from collections.abc import Callable, Iterator
import functools
import gc
import os
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# XLA's older way of writing CPU kernels compiles in half the time, and small programs compile sooner in one piece.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
).strip()

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs of tests are small and run briefly: most of their time is compiling. One setting for the whole session, since
# two would differ in the last bits.
jax.config.update("jax_disable_most_optimizations", True)
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
# Tracing makes many short-lived objects; collecting them rarely is faster.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    """Modules and collected tests live to the end: the collector need not look at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield


class TraceCounter:
    """Wrap a function before `jax.jit`; `count` is then the number of times it was traced."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return function(*args, **kwargs)

        return counted


@pytest.fixture
def trace_counter() -> TraceCounter:
    """`step = jax.jit(trace_counter(step))`, then assert `trace_counter.count == 1`."""
    return TraceCounter()
