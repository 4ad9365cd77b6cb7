# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command and every setting that the README and the guides show.

Plans need no node and are run. A play that wants a node runs as it stands against a fake one (fake_node.py): all of it
but the work on a node, which the Molecule scenarios do. What a page sets must be a variable that there is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_node
import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import values
from ansible_collections.gpunode.llm.plugins.plugin_utils.screen import plan as screen_plan

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted([CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")])
PROGRAMS = ("ansible", "ansible-playbook", "ansible-doc", "ansible-galaxy", "git", "make", "pip", "tests/lab/lab")
# What is run elsewhere, or reaches for what no test may.
ELSEWHERE = {
    "ansible-galaxy collection install gpunode.llm": "tests/artefact.sh installs a built one",
    "ansible-galaxy collection install gpunode-llm.tar.gz": "tests/artefact.sh installs a built one",
    "ansible-playbook gpunode.llm.bundle -e model=8b -e gpus=8xH100 -e bundle=/srv/bundle -e tar=true": "Molecule",
    "ansible-playbook -i hosts.yml gpunode.llm.status -e @vars.yml -e watch=5": "Molecule, which interrupts it",
    "ansible-playbook -i hosts.yml gpunode.llm.site -e @vars.yml -e @/srv/bundle/vars.yml": "Molecule, as it was made",
    "ansible -i hosts.yml all -m ansible.builtin.ping": "it asks the node of the page itself",
    "pip install ansible-core": "tests/venv.sh",
    "ansible-galaxy collection install awx.awx": "tests/awx/run.sh has it from PyPI",
    "ansible-playbook gpunode.llm.awx": "tests/awx applies it",
    'ansible-playbook gpunode.llm.awx -e \'{"awx_credentials": ["our ssh key", "our token"]}\'': "as well",
    "ansible-playbook -i inventories/lab site.yml -e model=tiny": "the default scenario of Molecule",
    "ansible-playbook -i hosts.yml gpunode.llm.site -e @vars.yml -e model=Qwen/Qwen2.5-32B-Instruct": "it asks the hub",
    "ansible-playbook gpunode.llm.plan -e gpus=2xH100 -e model=Qwen/Qwen2.5-32B-Instruct@main": "as well",
    "git clone https://github.com/gpunode/llm.git": "the repository's own address",
}

# The guide on weights names a model of its reader's own.
MODELS = {"mine": {"repo_id": "org/mine", "config_of": "8b"}}


def commands(page: Path) -> list[str]:
    """What stands in blocks and in the text as a command, without comments and without what is set before it."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    text = re.sub(r"^```ya?ml\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(?:\$ |    )?(\S.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    parts = [part for line in lines for part in re.split(r"\s&&\s", re.sub(r"\s+#\s.*", "", line))]
    bare = [re.sub(r"^(?:[A-Z_]+=\S+\s+)+", "", part).strip() for part in parts]
    return sorted({command for command in bare if command.split(" ")[0] in PROGRAMS and " " in command})


def blocks(page: Path) -> list[str]:
    """The snippets of YAML."""
    return re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def cases() -> list[object]:
    """Each command once, by the first page that shows it."""
    pages = {command: page for page in reversed(PAGES) for command in commands(page) if command not in ELSEWHERE}
    return [pytest.param(command, id=f"{pages[command].relative_to(CHECKOUT)}: {command}") for command in sorted(pages)]


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path = CHECKOUT) -> str:
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "GPUNODE_LAB_NODES": "none", **(env or {})}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose nodes answer without being there, with the files that its reader has by then.

    Two that the quickstart has them write, and the keys of a client that is to be revoked.
    """
    home = fake_node.make(tmp_path_factory.mktemp("collections"))
    (home / "gateway-keys.yml").write_text(f"gateway_keys: {{grace: {{sha256: {'0' * 64}}}}}\n")
    pages = [CHECKOUT / "docs" / "quickstart.md"]
    for name in ("hosts.yml", "vars.yml"):
        (home / name).write_text(
            next(block for page in pages for block in blocks(page) if block.startswith(f"# {name}\n"))
        )
    return home


@pytest.fixture(scope="session")
def played() -> set[str]:
    """The plays that were run."""
    return set()


def as_one_play(args: list[str]) -> str:
    """A play without whose nodes it is for, and under one of its names."""
    text = re.sub(r"(^| )-[iu] \S+", "", " ".join(args))
    return re.sub(r"(gpunode\.llm\.|playbooks/)?site(\.yml)?", "site", text).strip()


def needs_a_node(args: list[str]) -> bool:
    return not any(arg.startswith("gpus=") for arg in args)


def play(checkout: Path, *args: str) -> str:
    """Run a play with the fake node in place of each of its inventory. What it says must be no warning."""
    here = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "vllm_extra_models": MODELS,
    }
    inventory = [] if "-i" in args else ["-i", "inventories/example"]
    check = [] if "--check" in args else ["--check"]
    env = {"ANSIBLE_COLLECTIONS_PATH": str(checkout.parents[2])}
    result = run("ansible-playbook", *inventory, *args, *check, "-e", json.dumps(here), env=env, cwd=checkout)
    assert "WARNING]" not in result, result
    return result


def test_commands_are_found() -> None:
    assert len(cases()) > 20
    assert "make demo" in commands(CHECKOUT / "README.md")


@pytest.mark.parametrize("command", cases())
def test_a_command(command: str, monkeypatch: pytest.MonkeyPatch, checkout: Path, played: set[str]) -> None:
    program, *args = shlex.split(command)
    if program == "tests/lab/lab":
        monkeypatch.syspath_prepend(CHECKOUT / "tests" / "lab")
        parser: argparse.ArgumentParser = runpy.run_path(str(CHECKOUT / "tests" / "lab" / "__main__.py"))["parser"]()
        assert parser.parse_args(args).run
    elif program == "make":
        run("make", "--dry-run", *args)
    elif program == "ansible-playbook" and needs_a_node(args):
        # What differs in its inventory alone is one play.
        if (same := as_one_play(args)) in played:
            run(
                program,
                *args,
                "--syntax-check",
                env={"ANSIBLE_COLLECTIONS_PATH": str(checkout.parents[2])},
                cwd=checkout,
            )
        else:
            play(checkout, *args)
            played.add(same)
    else:
        # No inventory is given, and none is needed.
        quiet = {"ANSIBLE_LOCALHOST_WARNING": "0", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0"}
        result = run(program, *args, env=quiet)
        assert result
        assert "WARNING]" not in result


def test_a_first_diff_can_be_read(tmp_path: Path) -> None:
    """Programs that the collection puts on a node made more than a thousand lines of it."""
    home = fake_node.make(tmp_path, own=["rendered_files"])
    result = play(home, "gpunode.llm.site", "-i", "gpu-1,", "-e", "model=8b", "--check", "--diff")
    assert "+++ after: /usr/local/lib/gpunode/vllm-wait.py" in result
    assert "+(a program of " in result
    assert "+++ after: /etc/systemd/system/vllm-8b.service" in result
    assert len(result.splitlines()) < 400


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_settings_are_variables(page: Path) -> None:
    shown: set[str] = set()
    for block in blocks(page):
        content = yaml.safe_load(block)
        if isinstance(content, dict) and not block.startswith(("# hosts.yml", "# presets/", "# prometheus.yml")):
            shown |= set(content)
    assert shown <= set(values.options())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_a_snippet_names_its_file(page: Path) -> None:
    for block in blocks(page):
        assert re.match(r"# [\w./-]+\.yml\n", block), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_there_is_one_way_to_call_it(page: Path) -> None:
    """By its name, with the quickstart's two files; the form of a clone stands there once, and in the README."""
    for command in commands(page):
        if "gpunode.llm.site" in command:
            assert command.startswith("ansible-playbook -i hosts.yml gpunode.llm.site -e @vars.yml"), command
    forms = [
        command
        for command in commands(page)
        if re.search(r"[ /]site\.yml", command) and "inventories/lab" not in command
    ]
    assert len(forms) <= (page.name in ("README.md", "quickstart.md")), forms


def test_the_readme_shows_what_is_printed(checkout: Path) -> None:
    page = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    (shown,) = (block for block in re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "[…]" in block)
    plan, card = shown.split("\n\n[…]\n\n")
    assert plan in play(
        checkout, "gpunode.llm.site", "-i", "hosts.yml", "-e", "@vars.yml", "-e", "vllm_max_model_len=32K"
    )
    tiny = {"name": "tiny", "host": "127.0.0.1", "port": 8000, "served_model_name": "gpunode/tiny-llama"}
    parts = {"image": 82, "endpoints": [{"name": "tiny", "seconds": {"compile": 0.6, "token": 0.01}}]}
    printed = "\n".join([*screen_plan.card([tiny], "gpu-1", parts, keyed=False), ""])
    # The seconds are those of a run in the lab.
    seconds = r"\b[\d.]+ s\b"
    assert re.sub(seconds, "N s", card) == re.sub(seconds, "N s", printed)


def copied(text: str) -> dict[str, Any]:
    """The file of variables to copy, with each value taken out of its comment."""
    found: dict[str, Any] = yaml.safe_load(re.sub(r"(?m)^# (\w+: \S)", r"\1", text))
    return found


def test_the_file_to_copy_is_good_as_it_stands_and_with_all_that_it_offers(checkout: Path) -> None:
    (text,) = (block for block in blocks(CHECKOUT / "docs" / "settings.md") if "# vllm_port: " in block)
    assert yaml.safe_load(text) == {"model": "8b"}
    every = copied(text)
    assert len(every) > 18
    for name, value in every.items():
        assert "{{" in str(value) or values.typed(name, value) is not None
    # The front is another way than a wider address, and the fake node has no nginx.
    offered = {name: value for name, value in every.items() if not name.startswith("gateway_")}
    for name, content in (("offered.yml", offered), ("secret.yml", {"vault_vllm_api_key": "sk-0123456789"})):
        (checkout / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    assert "to mend" not in play(checkout, "gpunode.llm.site", "-e", "@offered.yml", "-e", "@secret.yml")
