# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command and every setting that the README and the guides show.

Plans need no node and are run. Of a play that wants a node everything is checked but its work on the node, which the
Molecule scenarios do. What a page sets must be a variable that there is.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted([CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")])
PROGRAMS = ("ansible", "ansible-playbook", "ansible-doc", "ansible-galaxy", "git", "make", "pip", "tests/lab/lab")
# What is run elsewhere, or reaches for what no test may.
ELSEWHERE = {
    "ansible-galaxy collection install gpunode.llm": "tests/artefact.sh installs a built one",
    "ansible-galaxy collection install gpunode-llm.tar.gz": "tests/artefact.sh installs a built one",
    "ansible-playbook gpunode.llm.bundle -e model=8b -e gpus=8xH100 -e bundle=/srv/bundle -e tar=true": "Molecule",
    "ansible-playbook -i gpu-1, -u ubuntu gpunode.llm.site -e @vars.yml": "Molecule, with vars.yml as it was made",
    "pip install ansible-core": "tests/venv.sh",
    "ansible-galaxy collection install awx.awx": "tests/awx/run.sh has it from PyPI",
    "ansible-playbook gpunode.llm.awx": "tests/awx applies it",
    'ansible-playbook gpunode.llm.awx -e \'{"awx_credentials": ["our ssh key", "our token"]}\'': "as well",
    "git clone https://github.com/gpunode/llm.git": "the repository's own address",
}


def commands(page: Path) -> list[str]:
    """What stands in blocks and in the text as a command, without comments and without what is set before it."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```ya?ml\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(?:\$ |    )?(\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    parts = [part for line in lines for part in re.split(r"\s&&\s", re.sub(r"\s+#\s.*", "", line))]
    bare = [re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", part).strip() for part in parts]
    return sorted({command for command in bare if command.split(" ")[0] in PROGRAMS and " " in command})


def cases() -> list[object]:
    return [
        pytest.param(command, id=f"{page.relative_to(CHECKOUT)}: {command}")
        for page in PAGES
        for command in commands(page)
        if command not in ELSEWHERE
    ]


def run(*argv: str) -> str:
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "GPUNODE_LAB_NODES": "none"}
    done = subprocess.run(argv, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_commands_are_found() -> None:
    assert len(cases()) > 20
    assert "make demo" in commands(CHECKOUT / "README.md")


@pytest.mark.parametrize("command", cases())
def test_a_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *args = shlex.split(command)
    if program == "tests/lab/lab":
        monkeypatch.syspath_prepend(CHECKOUT / "tests" / "lab")
        parser: argparse.ArgumentParser = runpy.run_path(str(CHECKOUT / "tests" / "lab" / "__main__.py"))["parser"]()
        assert parser.parse_args(args).run
    elif program == "make":
        run("make", "--dry-run", *args)
    elif program == "ansible-playbook" and "-i" in args:
        run(program, *args, "--syntax-check")
    else:
        assert run(program, *args)


def variables() -> set[str]:
    """What a user may set: the roles' own variables, and what the playbook hands to the plan."""
    site = (CHECKOUT / "playbooks" / "tasks" / "decide.yml").read_text(encoding="utf-8")
    found = {"model", "models", *re.findall(r"{{ (\w+) \| default\(omit(?:, true)?\) }}", site)}
    for spec in (CHECKOUT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(spec.read_text())["argument_specs"].values():
            found |= set(entry.get("options", {}))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_settings_are_variables(page: Path) -> None:
    shown: set[str] = set()
    for block in re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        content = yaml.safe_load(block)
        if isinstance(content, dict):
            shown |= set(content)
    assert shown <= variables()
