"""Diffusion policies for reinforcement learning as pure JAX functions.

Importing the package imports nothing else: take what you need from its rooms, for example `jaxdiff.diffusion`,
`jaxdiff.algorithms` or `jaxdiff.envs`. The command line is `jaxdiff --help`.
"""

__version__ = "0.1.0"
