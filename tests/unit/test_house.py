# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live in plugins/: which file may import which, and that each kind of input and output has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.module_utils.bundle import run as bundle_run
from ansible_collections.gpunode.llm.plugins.module_utils.hub import run as hub_run

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
COLLECTION = "ansible_collections.gpunode.llm"
#: In a virtual environment on the node alone, while modules carry the code that calls them.
IN_THE_VENV = {"huggingface_hub", "httpx2"}


@cache
def trees() -> dict[str, ast.Module]:
    """Every file, by its path below plugins/."""
    return {str(path.relative_to(PLUGINS)): ast.parse(path.read_text("utf-8")) for path in PLUGINS.rglob("*.py")}


def imported(file: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The files of plugins/ that an import statement names."""
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return
    folder = Path(file).parents[node.level - 1] / (node.module or "").replace(".", "/")
    for target in (f"{folder}.py", *(f"{folder / alias.name}.py" for alias in node.names)):
        if str(Path(target)) in trees():
            yield str(Path(target))


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))


def names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that it imports, as they are written."""
    return [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


def test_nothing_is_imported_inside_a_function() -> None:
    """AnsiballZ packs it all the same, and a circle hides there."""
    functions = (
        (file, node)
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    inside = {(file, name) for file, function in functions for one in imports(function) for name in names(one)}
    assert sorted((file, name) for file, name in inside if name.split(".")[0] not in IN_THE_VENV) == []


def test_no_file_leads_back_to_itself() -> None:
    leads = {file: {to for one in imports(tree) for to in imported(file, one)} for file, tree in trees().items()}
    assert any(len(to) > 3 for to in leads.values())
    while ends := {file for file, to in leads.items() if not to}:
        leads = {file: to - ends for file, to in leads.items() if file not in ends}
    assert leads == {}


def test_the_collection_imports_itself_relatively() -> None:
    absolute = [
        (file, name)
        for file, tree in trees().items()
        for one in imports(tree)
        for name in names(one)
        if name.startswith(COLLECTION)
    ]
    assert absolute == []


def test_a_folder_is_seen_at_one_glance() -> None:
    for folder in ("module_utils", "plugin_utils"):
        assert len([path for path in (PLUGINS / folder).iterdir() if path.name != "__pycache__"]) <= 14


#: What runs on a node apart from any module, and the list of what is copied there for it.
JOBS = {"module_utils/hub/__main__.py": hub_run.CODE, "module_utils/bundle/__main__.py": bundle_run.CODE}


@pytest.mark.parametrize("program", JOBS)
def test_a_job_takes_along_all_that_it_imports_and_no_more(program: str) -> None:
    needed, seen = {program}, set()
    while more := needed - seen:
        seen |= more
        needed |= {to for file in more for one in imports(trees()[file]) for to in imported(file, one)}
    copied = {module.__name__.partition(".plugins.")[2].replace(".", "/") + ".py" for module in JOBS[program]}
    assert copied == needed


#: What only these call. A name that ends in / is a folder.
HOMES = {
    # A file on its way from a hub, and a bundle as it is packed and unpacked, are more than a file to read or write.
    "open": {
        "module_utils/node/files.py",
        "module_utils/programs/",
        "module_utils/hub/file.py",
        "module_utils/bundle/",
    },
    "os.replace": {"module_utils/node/files.py", "module_utils/hub/file.py", "module_utils/bundle/contents.py"},
    "tempfile.mkstemp": {"module_utils/node/files.py"},
}


@pytest.mark.parametrize("called", HOMES)
def test_a_kind_of_input_and_output_has_one_home(called: str) -> None:
    who = {
        file
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == called
    }
    homes = {home for home in HOMES[called] if any(file.startswith(home) for file in who)}
    assert homes == HOMES[called]
    assert [file for file in sorted(who) if not any(map(file.startswith, homes))] == []
