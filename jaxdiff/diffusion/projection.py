"""Known entries of x0 (the first state of a plan, a goal): held in the prediction, or in the state after every row.

`inpaint` and `hold_known` are denoisers and work with every sampler. The others are hooks, `sample(project=...)`, for
samplers of whole steps. All but `inpaint` also tell the network, through x_t, what is known.
"""

import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.level import Level, add_noise
from jaxdiff.diffusion.solvers.loop import Projection
from jaxdiff.types import Array


def inpaint(denoise: Denoiser, mask: Array, known: Array) -> Denoiser:
    """Replaces the x0-prediction by known values where mask is true.

    The chain ends at the known values, and its noise there stays its own.

    Args:
      denoise: the denoiser.
      mask: booleans that broadcast to x [*B, ..., D].
      known: values that broadcast to x; those where mask is false are ignored.

    Raises:
      ValueError: a mask that is not boolean; when called, shapes that do not broadcast to that of x.
    """
    _check_mask(mask)
    return lambda x, level: _write(denoise(x, level), mask, known, known)


def hold_known(denoise: Denoiser, mask: Array, known: Array) -> Denoiser:
    """Shows the network the clean known values where mask is true, and puts them into its prediction there too.

    The other entries go where they would under the hook `keep_known`, but with every sampler, inner stages included;
    the chain ends at the known values.

    Args:
      denoise: the denoiser, of a network trained with `keep_known` applied to x_t.
      mask: booleans that broadcast to x [*B, ..., D].
      known: values that broadcast to x; those where mask is false are ignored.

    Raises:
      ValueError: a mask that is not boolean; when called, shapes that do not broadcast to that of x.
    """
    _check_mask(mask)
    return lambda x, level: _write(denoise(_write(x, mask, known, known), level), mask, known, known)


def keep_known(mask: Array, known: Array) -> Projection:
    """Hook that writes the clean known values into x where mask is true, at every noise level, as Diffuser does.

    A network sees them as they are, so it must have been trained so: with `keep_known` applied to x_t in the loss.

    Args:
      mask: booleans that broadcast to x [*B, ..., D].
      known: values that broadcast to x; those where mask is false are ignored.

    Raises:
      ValueError: a mask that is not boolean; when called, shapes that do not broadcast to that of x.

    Reference: Janner et al. 2022, arXiv:2205.09991, section 3.3.
    """
    _check_mask(mask)

    def project(x: Array, level: Level, noise: Array) -> Array:
        del level, noise
        return _write(x, mask, known, known)

    return project


def renoise_known(mask: Array, known: Array) -> Projection:
    """Hook that writes alpha known + sigma noise into x where mask is true: known values at the level of the rest.

    For a network that was trained without knowing anything. At the clean end the known values themselves are written.

    Args:
      mask: booleans that broadcast to x [*B, ..., D].
      known: values that broadcast to x; those where mask is false are ignored.

    Raises:
      ValueError: a mask that is not boolean; when called, shapes that do not broadcast to that of x.

    Reference: Song et al. 2021, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv:2201.09865, eq. 8a.
    """
    _check_mask(mask)

    def project(x: Array, level: Level, noise: Array) -> Array:
        _check_shapes(x, mask, known)
        return _write(x, mask, known, add_noise(level, jnp.broadcast_to(known, x.shape), noise))

    return project


def _write(x: Array, mask: Array, known: Array, values: Array) -> Array:
    _check_shapes(x, mask, known)
    return jnp.where(jnp.broadcast_to(mask, x.shape), jnp.broadcast_to(values, x.shape), x)


def _check_mask(mask: Array) -> None:
    if jnp.result_type(mask) != jnp.dtype(bool):
        raise ValueError(f"mask has dtype {jnp.result_type(mask)}; give booleans, true where values are known.")


def _check_shapes(x: Array, mask: Array, known: Array) -> None:
    for name, array in (("mask", mask), ("known", known)):
        try:
            fits = np.broadcast_shapes(jnp.shape(array), x.shape) == x.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{name} has shape {jnp.shape(array)} and x {x.shape}; it must broadcast to that.")
