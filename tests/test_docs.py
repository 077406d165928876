"""Every example of the documentation runs, from the top of its page to the end, and asserts what it says."""

import ast
from pathlib import Path
import re

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [*sorted(DOCS.glob("diffusion/*.md")), DOCS / "sweeps.md", DOCS / "vec.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
NODE = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
ROW = re.compile(r"^\|(?! detail |[ :|-]+$).*$", re.MULTILINE)
WITH_EXAMPLE = ("schedule", "denoiser", "solver_table", "guidance", "likelihood", "sweeps", "vec")


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


def test_each_idea_has_a_page_with_an_example():
    found = {page.stem for page in PAGES if blocks(page)}
    assert found >= set(WITH_EXAMPLE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_examples_run(page):
    code = blocks(page)
    assert any("assert" in block for block in code), "an example that asserts nothing shows nothing"
    names: dict[str, object] = {"__name__": page.stem}
    for k, block in enumerate(code):
        exec(compile(block, f"{page.name}, block {k + 1}", "exec"), names)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_tests_that_a_page_names_exist(page):
    for file, name in sorted(set(NODE.findall(page.read_text()))):
        path = DOCS.parent / file
        assert path.is_file(), f"{file} is not there"
        defined = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert name in defined, f"{file} has no {name}"


def test_every_faithful_detail_names_the_test_that_guards_it():
    rows = ROW.findall((DOCS / "faithful.md").read_text())
    assert len(rows) > 20
    for row in rows:
        assert row.count("|") == 4, f"three columns: {row}"
        assert NODE.search(row.split("|")[3]), f"no test: {row}"
