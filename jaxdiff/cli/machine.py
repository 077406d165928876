"""What a command wants of the machine before JAX has started: devices, and a place for compiled programs."""

from collections.abc import Mapping
import os
from pathlib import Path
import platform


def use_all_cores(lanes: str) -> None:
    """On a CPU, makes one device per core, so that lanes can be spread over them. Only before JAX has started."""
    import jax

    if lanes not in ("vmap", "map"):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def compilation_cache(environment: Mapping[str, str]) -> Path:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, or a folder for this machine in the user's cache.

    Programs for one kind of processor do not run on another, and home folders are often shared between machines.
    """
    given = environment.get("JAX_COMPILATION_CACHE_DIR")
    return Path(given or Path("~/.cache/jaxdiff/compiled") / platform.node()).expanduser()


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or a folder of this machine's cache."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache(os.environ)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
