"""`jaxdiff COMMAND [flags]`: find the command, run it, turn expected errors into one line.

Only the chosen command's module is imported, so `jaxdiff --help` needs neither JAX nor a simulator.

Exit codes: 0 done, 1 the command ran and found a problem, 2 the request was wrong, 130 interrupted. An exception whose
message was written for the user prints as `jaxdiff: error: ...` and exits 2; see `is_expected`. Any other exception
is a bug and shows its traceback, as does every exception with JAXDIFF_DEBUG=1.
"""

from collections.abc import Callable, Sequence
import importlib
import importlib.util
import linecache
import os
from pathlib import Path
import sys
from types import TracebackType

import jaxdiff
from jaxdiff.suggest import did_you_mean

# name -> (module:function, what it does). The function takes the arguments after the name and returns an exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("jaxdiff.cli.demo:main", "make data, train a few methods over seeds, write a report: minutes on a laptop"),
    "data": ("jaxdiff.cli.data:main", "list, make, describe or import datasets"),
    "train": ("jaxdiff.cli.run:train", "train one config"),
    "sweep": ("jaxdiff.cli.run:sweep", "train a study: seeds and hyperparameters side by side on the device"),
    "tune": ("jaxdiff.cli.tune:main", "search static choices, such as widths: each a study, the next chosen by scores"),
    "work": ("jaxdiff.cli.work:main", "train the packs of a prepared study that are not finished"),
    "eval": ("jaxdiff.cli.evaluate:main", "roll out the policies of a run folder"),
    "plan": ("jaxdiff.cli.planning:main", "draw a planner's plans, how they come out of noise and what came of them"),
    "launch": ("launch.main:main", "spread a prepared study over processes, Slurm, Ray, Kubernetes or TPU VMs"),
    "status": ("jaxdiff.cli.status:main", "say what of a study is finished, running or failed, and how good it is"),
    "report": ("jaxdiff.cli.report:main", "write report.html from one or more run folders"),
    "compare": ("jaxdiff.cli.compare:main", "say what settings gain or lose from one run folder to another"),
    "rerun": ("jaxdiff.cli.run:rerun", "repeat a run folder from its run.json"),
    "bench": ("jaxdiff.cli.bench:main", "measure updates per second for each way of running lanes"),
    "gallery": ("jaxdiff.cli.gallery:main", "draw samplers, schedules and guidance on known densities: one page"),
    "doctor": ("jaxdiff.cli.doctor:main", "check versions, devices, extras and the compilation cache"),
}

_EXPECTED: tuple[type[Exception], ...] = (KeyError, ValueError, OSError, ImportError)


def usage() -> str:
    """The text of `jaxdiff --help`."""
    rows = [f"  {name:8} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            f"jaxdiff {jaxdiff.__version__}: diffusion policies for reinforcement learning, sweeps in one program",
            "",
            "usage: jaxdiff COMMAND [flags]",
            "       jaxdiff help COMMAND",
            "       jaxdiff --version",
            "",
            "commands:",
            *rows,
            "",
            "A first result:  jaxdiff demo",
            "A config's keys are flags:  jaxdiff train --config=NAME --config.hparams.lr=1e-3",
            "JAXDIFF_DEBUG=1 shows the traceback of every error.",
        ]
    )


def command(name: str) -> Callable[[list[str]], int]:
    """Import the command's module and give its function.

    Raises:
      KeyError: no such command; the message offers the nearest one and the list.
    """
    if name not in COMMANDS:
        raise KeyError(f"unknown command {name!r}; {did_you_mean(name, COMMANDS)}")
    module, function = COMMANDS[name][0].split(":")
    # A wheel carries the top folder `launch` inside the package, as it does `experiments`.
    if module.startswith("launch.") and importlib.util.find_spec("jaxdiff.launch") is not None:
        module = f"jaxdiff.{module}"
    found: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return found


def is_expected(error: BaseException) -> bool:
    """Whether the error's message was written for the user, so that a traceback would only hide it.

    True for absl's flag errors, for an OSError that names a file, and for a KeyError, ValueError or ImportError that
    jaxdiff, its launcher or a config file raised with a `raise` statement of its own. A `d["x"]` that misses, or a
    shape error from inside JAX, is a bug: it keeps its traceback.
    """
    if not isinstance(error, _EXPECTED):
        return isinstance(error, _user_errors())
    if error.__traceback__ is None:
        return False
    if isinstance(error, OSError):
        return error.filename is not None
    path, line = _origin(error.__traceback__)
    is_ours = Path(jaxdiff.__file__).parent in path.parents or path.parent.name in ("experiments", "launch")
    return is_ours and line.lstrip().startswith("raise ")


def _user_errors() -> tuple[type[Exception], ...]:
    """What a wrong request can raise, absl's errors among it if the command got as far as importing absl."""
    flags = sys.modules.get("absl.flags")
    return _EXPECTED if flags is None else (*_EXPECTED, flags.Error)


def _origin(traceback: TracebackType) -> tuple[Path, str]:
    """The file and the source line that raised."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    path = traceback.tb_frame.f_code.co_filename
    return Path(path), linecache.getline(path, traceback.tb_lineno)


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    # str(KeyError("text")) is the repr of the text.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "-help") or list(argv) == ["help"]:
        print(usage())
        return 0
    if argv[0] in ("--version", "-V", "version"):
        print(f"jaxdiff {jaxdiff.__version__}")
        return 0
    if argv[0] == "help":
        return command(argv[1])(["--help"])
    return command(argv[0])(list(argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command line, without the program's name, and return its exit code."""
    try:
        return _dispatch(argv)
    except SystemExit as stop:  # a command's own --help
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    except KeyboardInterrupt:
        print("jaxdiff: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `jaxdiff data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _user_errors() as error:
        if os.environ.get("JAXDIFF_DEBUG") == "1" or not is_expected(error):
            raise
        print(f"jaxdiff: error: {_message(error)}", file=sys.stderr)
        return 2


def main_entry() -> None:
    """The `jaxdiff` script."""
    sys.exit(main(sys.argv[1:]))
