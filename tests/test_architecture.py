"""The floors: what may import what, who may touch files, and what `import jaxdiff` costs. See BUILD.md."""

import ast
from collections.abc import Iterator
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "points": 0, "suggest": 0, "types": 0,
    "diffusion": 1, "generative": 1, "networks": 1, "offloading": 1, "regions": 1, "rl": 1,
    "data": 2, "envs": 2,
    "algorithms": 3,
    "multi": 4,
    "train": 5, "evaluate": 5, "sweep": 5, "adaptive": 5, "io": 5, "behaviour": 5,
    "cli": 6,
}  # fmt: skip
# These cost seconds or print at import, so they are imported by the function that needs them.
LAZY = {
    *("brax", "diffrax", "distrax", "gymnasium", "h5py", "jumanji", "matplotlib", "minari", "mujoco", "tensorboardX"),
    *("fsspec", "jaxmarl", "mlflow", "optuna", "mpe2", "pettingzoo", "pyarrow", "wandb"),
}
WRITERS = {"cli", "data", "io"}
# Where an algorithm's name stands outside its own file and the registry, and why that is no branch on it.
NAMED_ELSEWHERE = {
    ("algorithms/edp.py", "iql"): "a guide of EDP's has this name",
    ("algorithms/ifql.py", "idql"): "the same method with a flow's defaults",
    ("cli/bench.py", "diffusion_ql"): "a default of --config: the name of a shipped config",
    ("envs/mpe/__init__.py", "omar"): "whose fork of the particle tasks, prey and scores these are",
    ("cli/settings.py", "omar"): "the forces of the particle tasks are named after its fork of them",
}
FILE_METHODS = {"mkdir", "open", "read_bytes", "read_text", "rmdir", "unlink", "write_bytes", "write_text"}

MODULES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "jaxdiff").rglob("*.py"))}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "jaxdiff").parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name, so that the floors can be read"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The statements that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def climbs(room: str, imported: str) -> bool:
    """Whether an import inside `room` goes up or sideways."""
    parts = imported.split(".")
    if parts[0] != "jaxdiff" or len(parts) == 1 or parts[1].startswith("__"):
        return False
    assert parts[1] in FLOORS, f"jaxdiff.{parts[1]} has no floor; give it one here and in BUILD.md"
    return parts[1] != room and FLOORS[parts[1]] >= FLOORS[room]


@pytest.mark.parametrize(
    ("room", "imported", "up"),
    [
        ("rl", "jaxdiff.types.Array", False),
        ("rl", "jaxdiff.networks", True),
        ("data", "jaxdiff.data.card", False),
        ("data", "jaxdiff.envs.make", True),
        ("types", "jaxdiff.rl", True),
        ("cli", "jaxdiff.io.runs", False),
        ("io", "jaxdiff.sweep", True),
        ("cli", "jaxdiff", False),
        ("rl", "jax.numpy", False),
    ],
)
def test_rule_itself(room, imported, up):
    assert climbs(room, imported) == up


def test_imports_go_strictly_down():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path, tree in MODULES.items()
        if path != ROOT / "jaxdiff" / "__init__.py"
        for line, name in imports(tree)
        if climbs(room_of(path), name)
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_the_package_itself_imports_nothing():
    assert list(imports(MODULES[ROOT / "jaxdiff" / "__init__.py"])) == []


def test_diffusion_knows_no_network_library_and_no_optimiser():
    for path, tree in MODULES.items():
        if room_of(path) in ("diffusion", "generative", "rl"):
            names = {name for _, name in imports(tree)}
            assert not [n for n in names if n.startswith(("optax", "flax.linen", "flax.nnx"))], path


def test_slow_libraries_are_imported_inside_functions():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path, tree in MODULES.items()
        for statement in outside_functions(tree)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for line, name in imports(statement)
        if name.split(".")[0] in LAZY
    ]
    assert not wrong, "\n".join(wrong)


def test_importing_every_room_starts_no_simulator():
    rooms = [f"jaxdiff.{room}" for room in FLOORS if (ROOT / "jaxdiff" / room).is_dir()]
    rooms += [f"jaxdiff.{room}" for room in FLOORS if (ROOT / "jaxdiff" / f"{room}.py").is_file()]
    code = f"import sys, {', '.join(rooms)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    # flax and orbax bring some of their own; what counts is that no simulator or plotting library starts.
    assert not {"brax", "distrax", "gymnasium", "jumanji", "matplotlib", "mujoco"} & set(done.stdout.split())


def modules_after_importing(*names: str, root: Path = ROOT) -> set[str]:
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.split())


def test_launchers_start_without_jax(tmp_path):
    (tmp_path / "probe.py").write_text("import jaxdiff.types")
    assert "jax" in modules_after_importing("probe", root=tmp_path), "the check must see an import at second hand"
    launchers = [f"launch.{path.stem}" for path in (ROOT / "launch").glob("*.py") if path.stem != "__init__"]
    assert "launch.main" in launchers
    assert "jax" not in modules_after_importing(*launchers)


def test_launchers_import_nothing_of_jaxdiff_that_needs_jax():
    """Inside functions too: what they take of jaxdiff is imported by itself, and JAX must not come with it."""
    taken = set()
    for path in (ROOT / "launch").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                taken |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                taken.add(node.module)
    assert not [name for name in taken if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "chex")]
    ours = sorted(name for name in taken if name.split(".")[0] == "jaxdiff")
    assert "jax" not in modules_after_importing("sys", *ours)


def test_launchers_fit_on_few_screens():
    assert not [path for path in (ROOT / "launch").glob("*.py") if len(path.read_text().splitlines()) > 220]


def test_files_and_the_terminal_belong_to_few_rooms():
    wrong = []
    for path, tree in MODULES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name):
                name = call.func.id
                bad = (name == "print" and room_of(path) not in {"cli", "io"}) or (
                    name == "open" and room_of(path) not in WRITERS
                )
            else:
                name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
                bad = name in FILE_METHODS and room_of(path) not in WRITERS
            if bad:
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno} calls {name}")
    assert not wrong, "\n".join(wrong)


def registered_algorithms() -> set[str]:
    """The keys of ALGORITHMS, read without importing them."""
    for node in ast.walk(MODULES[ROOT / "jaxdiff" / "algorithms" / "__init__.py"]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError("the registry is a dict written by hand")


def words_of_code(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and word of every identifier, import and string, docstrings and comments left out."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        texts: list[str] = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            texts = [node.value]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or ""]
        else:
            names = (getattr(node, field, None) for field in ("id", "attr", "arg", "name", "asname"))
            texts = [name for name in names if isinstance(name, str)]
        yield from ((getattr(node, "lineno", 0), word) for text in texts for word in re.findall(r"\w+", text))


def test_words_are_those_of_code_and_not_of_prose():
    code = """
def learn(bc, iql=1):
    'Unlike cql.'
    from jaxdiff.algorithms import edp as method  # and fql
    return method.qgpo({"kind": f"{iql}:dppo-x"}, ifql=bc)
"""
    found = {word for _, word in words_of_code(ast.parse(code))}
    assert {"bc", "iql", "edp", "method", "qgpo", "dppo", "ifql"} <= found
    assert not {"cql", "fql"} & found


def test_no_algorithm_is_named_outside_its_own_file_and_the_registry():
    algorithms, folder = registered_algorithms(), ROOT / "jaxdiff" / "algorithms"
    assert {path.stem for path in MODULES if path.parent == folder} >= algorithms >= {"diffusion_ql", "edp", "bc"}
    found: dict[tuple[str, str], list[int]] = {}
    for path, tree in MODULES.items():
        for line, word in words_of_code(tree):
            if word in algorithms and path not in (folder / f"{word}.py", folder / "__init__.py"):
                found.setdefault((path.relative_to(ROOT / "jaxdiff").as_posix(), word), []).append(line)
    new = {f"{where} names {word} in lines {found[where, word]}" for where, word in found.keys() - NAMED_ELSEWHERE}
    assert not new, "\n".join(sorted(new))
    assert not NAMED_ELSEWHERE.keys() - found, "no longer named there: take it off the list"


def test_files_and_functions_fit_on_a_few_screens():
    long = []
    for path, tree in MODULES.items():
        if (lines := len(path.read_text().splitlines())) > 350:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and own_lines(node) > 60:
                long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {own_lines(node)} lines of its own")
    assert not long, "\n".join(long)


def own_lines(node: ast.FunctionDef) -> int:
    """Length without the docstring and without the functions defined inside, which are counted by themselves."""
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.FunctionDef)]
    nested = sum((child.end_lineno or 0) - child.lineno + 1 for child in inside)
    docstring = len((ast.get_docstring(node) or "").splitlines())
    return (node.end_lineno or 0) - node.lineno + 1 - nested - docstring


def test_no_room_for_odds_and_ends():
    assert not [path for path in MODULES if path.stem in {"utils", "util", "helpers", "common", "misc"}]
