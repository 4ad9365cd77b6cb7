# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live in plugins/: which file may import which, and that each kind of input and output has one home."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
COLLECTION = "ansible_collections.gpunode.llm"
#: The first two are in a virtual environment on the node alone. The third takes a node longer to load than all that a
#: play with nothing to do looks at, so only what asks a network loads it.
LATE = {"huggingface_hub", "httpx2", "ansible.module_utils.urls"}


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
    asks = "module_utils/preflight/reach.py"  # what it asks with is loaded where something is to be fetched
    late = {(file, name) for file, name in inside if not {name, name.split(".")[0]} & LATE}
    assert sorted(file for file, name in late if file != asks) == []


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
