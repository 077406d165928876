"""What a command wants of the machine before JAX has started: devices, and a place for compiled programs."""

import os

from jaxdiff.cli.config import compilation_cache


def use_all_cores(lanes: str) -> None:
    """On a CPU, makes one device per core, so that lanes can be spread over them. Only before JAX has started."""
    import jax

    if lanes not in ("vmap", "map"):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or a folder of this machine's cache."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(compilation_cache(os.environ)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
