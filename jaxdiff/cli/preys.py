"""The prey of a hunt that a command names: a file of OMAR's, or a run of one's own."""

import errno
import pathlib
import warnings

from jaxdiff.cli import advice
from jaxdiff.data.sources import prey_file
from jaxdiff.envs import mpe


def of_config(given: str, env: str) -> mpe.NetworkPrey | mpe.PolicyPrey:
    """What `config.mpe.prey=given` means in env, mpe-tag or mpe-world.

    Raises:
      FileNotFoundError: neither a file nor a folder.
      ValueError: a bad file, see `prey_file.read`; a folder that is no run of such a prey, see `trained_prey.load`.
    """
    path = pathlib.Path(given).expanduser()
    if path.is_dir():
        from jaxdiff.cli import trained_prey  # which builds tasks itself

        return trained_prey.load(path, env)
    if not path.exists():
        reason = (
            "no such file, given as config.mpe.prey, which takes 'scripted', a file of OMAR's prey "
            f"(pretrained_adv_model.pt), or the folder of a run of {env}-prey"
        )
        raise FileNotFoundError(errno.ENOENT, reason, str(path))
    return of_file(path)


def of_file(path: pathlib.Path) -> mpe.NetworkPrey:
    """The network of a file; says on stderr where it is none of OMAR's own. Raises as `prey_file.read`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        params = prey_file.read(path)
    for warning in caught:
        advice.say_once(str(warning.message))
    return mpe.prey_network(params)
