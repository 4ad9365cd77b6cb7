# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories as each system gets them: whole files, from the roles' own tasks and defaults.

The expected files lie in golden/. After a change that is meant: GOLDEN_UPDATE=1 pytest, and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils import _apt

HERE = Path(__file__).parent
ROLES = HERE.parents[2] / "roles"
SYSTEMS = {
    "debian12-amd64": ("Debian", "bookworm", "x86_64"),
    "debian12-arm64": ("Debian", "bookworm", "aarch64"),
    "debian13-amd64": ("Debian", "trixie", "x86_64"),
    "ubuntu2204-amd64": ("Ubuntu", "jammy", "x86_64"),
    "ubuntu2404-amd64": ("Ubuntu", "noble", "x86_64"),
    "ubuntu2404-arm64": ("Ubuntu", "noble", "aarch64"),
    "ubuntu2604-amd64": ("Ubuntu", "resolute", "x86_64"),
}


def trusted(value):
    """A role's file as ansible reads it: every string may be a template."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def read(role: str, path: str):
    return trusted(yaml.safe_load((ROLES / role / path).read_text()))


def arguments(role: str, system: str, **settings) -> dict:
    """The arguments of the role's apt_source task on a system."""
    distribution, release, architecture = SYSTEMS[system]
    facts = {
        "distribution": distribution,
        "distribution_release": release,
        "architecture": architecture,
        "env": {},
        "os_family": "Debian",
        "user_id": "root",
    }
    variables = {**read(role, "defaults/main.yml"), **read(role, "vars/Debian.yml"), "ansible_facts": facts, **settings}
    task = next(t for t in read(role, "tasks/install.yml") if "gpunode.llm.apt_source" in t)
    return Templar(loader=DataLoader(), variables={**variables, "omit": None}).template(task["gpunode.llm.apt_source"])


def source(given: dict) -> str:
    return _apt.Source(
        uri=given["uri"],
        suite=given["suite"],
        components=tuple(given.get("components", ())),
        architectures=tuple(given["architectures"]),
        signed_by=f"/etc/apt/keyrings/{given['name']}.asc",
        comment=given["description"],
    ).render()


@pytest.mark.parametrize("role", ["docker", "nvidia_container_toolkit"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_sources(role: str, system: str) -> None:
    given = arguments(role, system)
    packages = _apt.pin(given["packages"], given["version"], given.get("pinned") or given["packages"])
    text = f"{source(given)}# key: {given['key_url']}\n# {given['fingerprint']}\n# packages: {' '.join(packages)}\n"
    if given.get("conflicts"):
        text += f"# instead of: {' '.join(given['conflicts'])}\n"
    expected = HERE / "golden" / f"{role}-{system}.sources"
    if os.environ.get("GOLDEN_UPDATE"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(text)
    assert text == expected.read_text()


def test_a_mirror_is_one_variable() -> None:
    given = arguments("docker", "ubuntu2404-amd64", docker_apt_url="https://mirror.example.com/docker")
    assert (given["uri"], given["key_url"]) == (
        "https://mirror.example.com/docker",
        "https://mirror.example.com/docker/gpg",
    )


@pytest.mark.parametrize(
    ("users", "env", "expected"),
    [
        (None, {"SUDO_USER": "ada"}, ["ada"]),
        (None, {}, []),
        ([], {"SUDO_USER": "ada"}, []),
        (["grace", "root"], {}, ["grace", "root"]),
    ],
)
def test_who_may_talk_to_docker(users, env, expected) -> None:
    variables = {
        **read("docker", "vars/main.yml"),
        "docker_users": users,
        "ansible_facts": {"env": env, "user_id": "root"},
    }
    assert Templar(loader=DataLoader(), variables=variables).template(variables["__docker_users"]) == expected


PROXIES = [
    ({"https": "http://u:p%40@proxy:3128"}, ["HTTPS_PROXY=http://u:p%40@proxy:3128"]),
    (
        {"http": "http://p:1", "https": "http://p:2", "no_proxy": "localhost,.lan"},
        ["HTTP_PROXY=http://p:1", "HTTPS_PROXY=http://p:2", "NO_PROXY=localhost,.lan"],
    ),
    ({"http": "", "https": None}, []),
]


@pytest.mark.parametrize(("proxy", "lines"), PROXIES)
def test_proxy(proxy: dict, lines: list[str]) -> None:
    template = trust_as_template((ROLES / "docker/templates/proxy.env.j2").read_text())
    templar = Templar(loader=DataLoader(), variables={"docker_proxy": proxy})
    text = templar.template(template, overrides={"trim_blocks": True, "lstrip_blocks": True})
    assert [line for line in text.splitlines() if not line.startswith("#")] == lines


@pytest.mark.parametrize("role", ["docker", "nvidia_container_toolkit"])
def test_defaults_are_the_argument_specs(role: str) -> None:
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())["argument_specs"]
    for entry in specs.values():
        assert {name: option.get("default") for name, option in entry["options"].items()} == defaults
        assert all(option["description"] and option["type"] for option in entry["options"].values())
