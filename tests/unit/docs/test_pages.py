# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages, and AWX's surveys, that are made from data say what the data say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from ansible_collections.gpunode.llm.plugins.plugin_utils import names, values
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner import options as planner_options
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import load_catalog

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "maker",
    [
        "docs/models_and_gpus.py",
        "docs/monitoring.py",
        "docs/results.py",
        "docs/settings.py",
        "docs/settings_schema.py",
        "docs/troubleshooting.py",
        "awx/make_surveys.py",
    ],
)
def test_the_page_is_in_step(maker: str) -> None:
    spec = importlib.util.spec_from_file_location("maker", CHECKOUT / maker)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run make docs surveys"


def test_the_page_of_models_has_each_model_once_in_its_family() -> None:
    page = (CHECKOUT / "docs" / "models-and-gpus.md").read_text(encoding="utf-8")
    for name, key in (("Llama", "8b"), ("Llama", "llama-4-scout"), ("Qwen", "qwen3.5-27b"), ("gpt-oss", "gpt-oss-20b")):
        family = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"| `{key}` |" in family
    served = [model.key for model in load_catalog().models.values() if model.device == "cuda"]
    assert sorted(re.findall(r"^\| `([\w.-]+)` \| \w[^`]* GB \|", page, re.MULTILINE)) == sorted(served)


def test_the_page_of_models_matches_the_plan() -> None:
    """The guide's floor: 24k on two H100, all of it on four."""
    page = (CHECKOUT / "docs" / "models-and-gpus.md").read_text(encoding="utf-8")
    head, row = (re.search(rf"^\| {name} \|.*$", page, re.MULTILINE)[0].split(" | ") for name in ("model", "`70b`"))
    assert dict(zip(head, row))["`h100`"] == "2 (24k), 4"
    (small,) = re.findall(r"^\| `l4` \| (.*) \|$", page, re.MULTILINE)
    assert small.startswith("`8b` (27k), ")


PAGES = sorted(
    [
        *(CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md")),
        *CHECKOUT.glob("docs/**/*.md"),
        *CHECKOUT.glob("roles/*/README.md"),
        *CHECKOUT.glob("roles/*/defaults/main.yml"),
        *CHECKOUT.glob("inventories/example/**/*.yml"),
    ]
)
#: They begin as variables of ours do: a package, and what the page of variables shows as another role's.
NO_VARIABLES = {"huggingface_hub", "docker_compose_version", "docker_compose_", "docker_install_compose"}
PLUGINS = {path.stem for end in ("py", "yml") for path in CHECKOUT.glob(f"plugins/*/[a-z]*.{end}")}
NAME = re.compile(rf"(?<![\w.{{/-])(?:{'|'.join(names.prefixes())})[a-z0-9_]+\b")
KNOWN = {*values.options(), *names.OUTCOMES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_a_page_names_no_variable_that_there_is_not(page: Path) -> None:
    assert set(NAME.findall(page.read_text(encoding="utf-8"))) - PLUGINS - NO_VARIABLES <= KNOWN


#: A path from the checkout, where one word of it may stand for any.
PLACE = re.compile(r"`((?:catalog|docs|molecule|playbooks|plugins|roles|tests|changelogs)/[\w./<>*]*)`")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_a_page_names_no_file_that_there_is_not(page: str) -> None:
    places = PLACE.findall((CHECKOUT / page).read_text(encoding="utf-8"))
    assert len(places) > 8
    assert [at for at in places if not list(CHECKOUT.glob(re.sub(r"<\w+>|NAME|ROLE", "*", at)))] == []


def code() -> str:
    """What the roles and the playbooks do, without their specifications, defaults and comments."""
    folders = ("roles/*/tasks", "roles/*/handlers", "roles/*/templates", "roles/*/vars", "playbooks")
    files = [path for folder in folders for path in CHECKOUT.glob(f"{folder}/**/*") if path.suffix in (".yml", ".j2")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.parent.name != "meta"]
    return re.sub(r"(?m)(^|\s)#.*$|'gpunode[^']*'|gpunode\.llm\.\w+", "", "\n".join(texts))


def test_code_and_specifications_name_the_same_variables() -> None:
    """A variable that the code reads and no specification has is on no page; one that no code reads does nothing."""
    text = code()
    read = set(re.findall(r"\b[a-z]\w*\b", text))
    # An action takes these by itself.
    planned = {f"vllm_{name}" for name in planner_options.definitions()}
    assert {name for name in values.options() if name not in read} - {names.OTHERS} - planned == set()
    used = {name for item in re.findall(r"{{.*?}}", text, re.DOTALL) for name in names.roots(item, {})}
    assert {name for name in used if name.startswith(names.prefixes())} <= KNOWN


def test_the_page_of_variables_has_all_of_them() -> None:
    page = (CHECKOUT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert {name for name in values.options() if f"`{name}`" not in page} == set()


def test_the_readme_is_short_and_in_a_newcomers_order() -> None:
    lines = (CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if line.startswith("## ")] == [
        "## Try it without a GPU",
        "## Use it",
        "## What it looks like",
        "## Variables",
        "## Roles",
        "## What the tests run for real",
    ]
    drawing = lines[lines.index("```text") + 1 :]
    assert 0 < drawing.index("```") <= 12
