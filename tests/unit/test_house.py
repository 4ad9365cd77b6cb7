# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things live in plugins/: which file may import which, and that each kind of input and output has one home."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.module_utils.benchmark import run as benchmark_run
from ansible_collections.gpunode.llm.plugins.module_utils.bundle import run as bundle_run
from ansible_collections.gpunode.llm.plugins.module_utils.hub import run as hub_run

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
COLLECTION = "ansible_collections.gpunode.llm"
#: In a virtual environment on the node alone, while modules carry the code that calls them.
IN_THE_VENV = {"huggingface_hub", "httpx2", "smg"}
#: They run inside an image; a part of vLLM that another release has elsewhere must not hinder the rest.
IN_AN_IMAGE = (
    "module_utils/image/all_reduce.py",
    "module_utils/image/engine_figures.py",
    "module_utils/benchmark/client.py",
)


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
    inside = {
        (file, name)
        for file, function in functions
        for statement in imports(function)
        for name in names(statement)
        if file not in IN_AN_IMAGE
    }
    assert sorted((file, name) for file, name in inside if name.split(".")[0] not in IN_THE_VENV) == []


def test_no_file_leads_back_to_itself() -> None:
    leads = {
        file: {to for statement in imports(tree) for to in imported(file, statement)} for file, tree in trees().items()
    }
    assert any(len(to) > 3 for to in leads.values())
    while ends := {file for file, to in leads.items() if not to}:
        leads = {file: to - ends for file, to in leads.items() if file not in ends}
    assert leads == {}


def carried(file: str) -> set[str]:
    """All that a module brings to the node."""
    found, ahead = {file}, [file]
    while ahead:
        current = ahead.pop()
        new = {path for node in imports(trees()[current]) for path in imported(current, node)} - found
        found |= new
        ahead += new
    return found


def test_modules_without_the_hub_carry_no_code_for_it() -> None:
    """The first question of every play is packed anew each time. Only models by their names need more of it."""
    speaks = {f"module_utils/hub/{name}.py" for name in ("api", "described", "named", "opener")}
    assert carried("modules/model_info.py") >= speaks
    assert not carried("modules/node_info.py") & speaks
    assert not carried("modules/gpu_info.py") & speaks


def test_the_collection_imports_itself_relatively() -> None:
    absolute = [
        (file, name)
        for file, tree in trees().items()
        for statement in imports(tree)
        for name in names(statement)
        if name.startswith(COLLECTION)
    ]
    assert absolute == []


def test_a_folder_is_seen_at_one_glance() -> None:
    for folder in ("module_utils", "plugin_utils"):
        assert len([path for path in (PLUGINS / folder).iterdir() if path.name != "__pycache__"]) <= 14


LONGEST_FUNCTION = 40


def test_a_function_fits_on_a_screen() -> None:
    root = PLUGINS.parent
    files = [path for folder in ("plugins", "tests", "molecule") for path in (root / folder).rglob("*.py")]
    assert len(files) > 300
    functions = [
        (path, node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert [
        f"{path.relative_to(root)}:{node.lineno} {node.name}"
        for path, node in functions
        if (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ] == []


def test_a_thing_and_what_asks_the_node_about_it_are_one_file() -> None:
    """As a core and its `_here` or `_file` they were two, and each reader had to find out which."""
    stems = {Path(file).stem for file in trees() if file.startswith("module_utils/")}
    assert "daemon" in stems
    assert sorted(stem for stem in stems if stem.endswith(("_here", "_file"))) == []


#: What runs on a node apart from any module, and the list of what is copied there for it.
JOBS = {
    "module_utils/hub/__main__.py": hub_run.CODE,
    "module_utils/bundle/__main__.py": bundle_run.CODE,
    "module_utils/benchmark/__main__.py": benchmark_run.CODE,
}
#: What starts beside it, from the same copies.
ALSO = {"module_utils/benchmark/__main__.py": {"module_utils/benchmark/client.py"}}


@pytest.mark.parametrize("program", JOBS)
def test_a_job_takes_along_all_that_it_imports_and_no_more(program: str) -> None:
    needed, seen = {program, *ALSO.get(program, ())}, set()
    while more := needed - seen:
        seen |= more
        needed |= {to for file in more for statement in imports(trees()[file]) for to in imported(file, statement)}
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
        # It runs in an image, and reads and writes files of its own.
        "module_utils/benchmark/client.py",
        "module_utils/image/usage.py",
    },
    "os.replace": {
        "module_utils/node/files.py",
        "module_utils/hub/file.py",
        "module_utils/bundle/contents.py",
        "module_utils/benchmark/client.py",
        "module_utils/image/usage.py",
        # Units run these, with nothing of ours beside them.
        "module_utils/programs/node_metrics.py",
        "module_utils/programs/vllm_peer.py",
    },
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


#: Words of a command that only these have, as a list of words or as text.
COMMANDS = {
    # What it collects for a person to read is a table.
    ("systemctl", "show"): {
        "module_utils/node/commands.py",
        "module_utils/programs/node_metrics.py",
        "module_utils/programs/vllm_peer.py",
        "module_utils/programs/vllm_wait.py",
        "module_utils/support/archive.py",
    },
    ("-q", "-x"): {
        "module_utils/programs/gpu.py",
        "module_utils/programs/node_metrics.py",
        "module_utils/support/archive.py",
    },
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_several_need_is_written_once(command: tuple[str, ...]) -> None:
    def words_of(node: ast.AST) -> set[object]:
        words = getattr(node, "elts", getattr(node, "args", []))
        return {word.value for word in words if isinstance(word, ast.Constant)} if isinstance(words, list) else set()

    files = {file for file, tree in trees().items() if any(set(command) <= words_of(node) for node in ast.walk(tree))}
    assert files == COMMANDS[command]


# -- what two sides share, and what templates may do ------------------------------------------------------------------
ROLES, PLAYBOOKS = PLUGINS.parent / "roles", PLUGINS.parent / "playbooks"
#: Names that a role, a module and a unit must agree on: each is written in names.py, and templates get it as a value.
SHARED = ("/run/vllm-", "started-from", "front.conf", "gpunode-gateway.service", "/run/gpunode/beside")
NAMES = "module_utils/instance/names.py"
#: Texts of modules that show an example.
SHOWN = {"DOCUMENTATION", "EXAMPLES", "RETURN"}


def texts(tree: ast.Module) -> Iterator[str]:
    """Every text of a file but those that only a reader sees: docstrings, and what documents a module."""
    hidden = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        or (isinstance(node, ast.Assign) and SHOWN & {ast.unparse(target) for target in node.targets})
    }
    return (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden
    )


@pytest.mark.parametrize("name", SHARED)
def test_a_name_that_two_sides_share_is_written_once(name: str) -> None:
    """Its parts are put together there: a name is found by asking that file for it, in the roles as well."""
    who = {file for file, tree in trees().items() if any(name in text for text in texts(tree))}
    assert who - {NAMES} == set()
    assert name in (PLUGINS / NAMES).read_text() or name.startswith("/run/vllm-")
    places = [path for folder in (ROLES, PLAYBOOKS) for end in ("yml", "j2", "sh") for path in folder.rglob(f"*.{end}")]
    assert len(places) > 100
    lines = [(path.name, line) for path in places for line in path.read_text("utf-8").splitlines()]
    # A comment may name it, and a template is called after the unit that it makes.
    messages = [(file, line) for file, line in lines if name in line.partition("# ")[0].replace(f"{name}.j2", "")]
    assert [(file, line) for file, line in messages if file != "vllm-back.sh"] == []


def test_a_unit_of_ours_is_read_as_text_in_one_file_alone() -> None:
    """Until release 1.1. Everybody else reads records."""
    who = {file for file, tree in trees().items() if any("X-gpunode" in text for text in texts(tree))}
    assert who == {"module_utils/instance/old_unit.py"}
    readers = ("status.py", "kept.py", "serving.py", "spare.py", "leftovers.py", "known.py", "record.py")
    marks = ("TimeoutStartSec", "nvidia\\.com", "ExecStart", "--timeout-s")
    for file in (f"module_utils/instance/{name}" for name in readers):
        assert [text for text in texts(trees()[file]) if any(mark in text for mark in marks)] == []


@pytest.mark.parametrize(
    ("figure", "home"), [(900, "module_utils/instance/record.py"), (0.92, "module_utils/programs/gpu.py")]
)
def test_a_figure_that_several_sides_count_with_is_written_once(figure: float, home: str) -> None:
    who = [
        file
        for file, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) is type(figure) and node.value == figure
    ]
    assert who == [home]


@pytest.mark.parametrize("template", sorted(ROLES.rglob("*.j2")), ids=lambda path: str(path.relative_to(ROLES)))
def test_a_template_prints(template: Path) -> None:
    text = template.read_text("utf-8")
    assert len(re.findall(r"{%-? *set ", text)) <= 5
    assert re.findall(r"\| *(?:combine|regex_\w+)\b|\bis match\b", text.replace("ansible.builtin.", "")) == []


LONGEST = 150
CONDITIONS = ("when", "that", "failed_when", "changed_when", "until")


def expressions(value: object, key: str = "") -> Iterator[str]:
    """Every Jinja expression of what a YAML file holds, each on one line. A condition is one without its braces."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from expressions(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from expressions(item, key)
    elif isinstance(value, str):
        found = [value] if key in CONDITIONS else re.findall(r"{{(.*?)}}", value, re.DOTALL)
        yield from (" ".join(expression.split()) for expression in found)


@pytest.mark.parametrize(
    "page",
    sorted(path for folder in (ROLES, PLAYBOOKS) for path in folder.rglob("*.yml")),
    ids=lambda path: str(path.relative_to(PLUGINS.parent)),
)
def test_no_expression_is_longer_than_a_reader_follows(page: Path) -> None:
    """A part that has a name of its own, a list of conditions or a filter makes it shorter."""
    found = expressions(yaml.safe_load(page.read_text("utf-8")))
    assert [expression for expression in found if len(expression) > LONGEST] == []


def test_expressions_are_found() -> None:
    page = {"a": ["x {{ one }}", {"b": "{{ two\n  | three }}"}], "when": ["four", "five\n and six"], "name": "seven"}
    assert list(expressions(page)) == ["one", "two | three", "four", "five and six"]


@pytest.mark.parametrize("program", sorted((PLUGINS / "module_utils" / "programs").glob("*.py")), ids=lambda p: p.stem)
def test_a_program_starts_on_a_node_that_has_nothing_of_ours(program: Path, tmp_path: Path) -> None:
    """Units run copies of them, with the system's Python, under names of their own."""
    copy = shutil.copy(program, tmp_path / "program.py")
    done = subprocess.run([sys.executable, "-I", "-S", copy, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# -- the tests themselves ---------------------------------------------------------------------------------------------
UNIT = Path(__file__).parent


def test_tests_of_plugins_lie_in_the_rooms_that_they_are_about() -> None:
    """Never in a folder of a kind of plugin: a concept has a core, a module and a screen, and is found in one place."""
    rooms = {path.name for folder in ("module_utils", "plugin_utils") for path in (PLUGINS / folder).iterdir()}
    folders = {path.relative_to(UNIT / "plugins").parts[0] for path in (UNIT / "plugins").rglob("*/test_*.py")}
    assert len(folders) > 10
    # What users set is read in plugin_utils/values.py and names.py.
    assert folders - rooms == {"settings"}


# -- one word for one thing (docs/architecture.md has the list) -------------------------------------------------------
PAGES = ("README.md", "CONTRIBUTING.md", "awx", "docs", "inventories", "playbooks", "plugins", "roles")
#: Words that are not used: the word that is, and what keeps its spelling since others read it (keys, files, options).
TWINS = {
    r"fronts?": ("gateway", r"in front\b|front\.conf|[\"'.]front\b|\bfront=|^front:|\bfront_(since_s|listens)"),
    r"wish(es)?": ("request", r"(?!)"),
    r"seat(s|ed)?": ("placement", r"(?!)"),
    r"dress": ("os-release", r"(?!)"),
    r"standby": ("second instance", r"(?!)"),
    # An option of earlier versions keeps its name as an alias.
    r"owed": ("pending", r"aliases\W+owed\b"),
}
#: A changed unit restarts what runs, so these keep their text.
UNITS = re.compile(r"templates/(gpunode-gateway(-update)?\.(service|path)|mounts\.conf)\.j2$")


def page_lines() -> Iterator[tuple[str, str]]:
    root = PLUGINS.parent
    tops = [root / page for page in PAGES]
    files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*")))]
    for file in files:
        if file.suffix in (".j2", ".json", ".md", ".py", ".sh", ".yml") and not UNITS.search(str(file)):
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
                yield f"{file.relative_to(root)}:{number}", line


@pytest.mark.parametrize("twin", TWINS)
def test_one_thing_has_one_word(twin: str) -> None:
    word, contract = TWINS[twin]
    wrong = re.compile(rf"\b{twin}\b", re.IGNORECASE)
    found = [f"{place}: {line.strip()}" for place, line in page_lines() if wrong.search(re.sub(contract, "", line))]
    assert found == [], f"the word is {word}"
