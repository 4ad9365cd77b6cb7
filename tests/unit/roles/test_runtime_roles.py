# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories as each system gets them: whole files, from the roles' own tasks and defaults.

The expected files lie in golden/. After a change that is meant: GOLDEN_UPDATE=1 pytest, and read the difference.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.gpunode.llm.plugins.module_utils.packages import apt as packages_apt, rpm as packages_rpm

HERE = Path(__file__).parent
OMITTED = "left out"
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
RED_HATS = {"rhel9": "RedHat", "rocky9": "Rocky", "alma9": "AlmaLinux"}


def trusted(value):
    """A role's file as ansible reads it: every string may be a template."""
    if isinstance(value, dict):
        return {key: trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def read(role: str, path: str):
    return trusted(yaml.safe_load((ROLES / role / path).read_text()))


def variables_of(role: str, facts: dict, **settings) -> dict:
    """What the role and the role packages know on a system with these facts, as the role's own task hands it over."""
    own = {**read("packages", "vars/main.yml"), **read(role, "defaults/main.yml"), **read(role, "vars/main.yml")}
    return {**own, "ansible_facts": {"env": {}, "user_id": "root", **facts}, "omit": OMITTED, **settings}


def handed(role: str, page: str) -> dict:
    """What a task file of the role hands to the role packages."""
    (task,) = (t for t in read(role, f"tasks/{page}.yml") if "ansible.builtin.import_role" in t)
    assert task["ansible.builtin.import_role"]["name"] == "gpunode.llm.packages"
    return task["vars"]


def task(role: str, manager: str, facts: dict, **settings) -> dict:
    """The arguments of the task that adds the role's repository, on a system with these facts; others are omitted."""
    module = f"gpunode.llm.{'apt' if manager == 'apt' else 'rpm'}_source"
    (found,) = (t for t in read("packages", "tasks/source.yml") if module in t)
    variables = variables_of(role, facts, **handed(role, "install"), **settings)
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.evaluate_conditional(trust_as_template(found["when"]))
    return {key: value for key, value in templar.template(found[module]).items() if value != OMITTED}


def arguments(role: str, system: str, **settings) -> dict:
    """The same on Debian or Ubuntu."""
    distribution, release, architecture = SYSTEMS[system]
    facts = {"distribution": distribution, "distribution_release": release, "architecture": architecture}
    return task(role, "apt", {**facts, "os_family": "Debian"}, **settings)


def red_hat(role: str, system: str, **settings) -> dict:
    """The same on the RHEL family."""
    facts = {"distribution": RED_HATS[system], "distribution_major_version": "9", "architecture": "x86_64"}
    return task(role, "dnf", {**facts, "os_family": "RedHat"}, **settings)


def source(given: dict) -> str:
    return packages_apt.Source(
        uri=given["uri"],
        suite=given["suite"],
        components=tuple(given.get("components", ())),
        architectures=tuple(given["architectures"]),
        signed_by=f"/etc/apt/keyrings/{given['name']}.asc",
        comment=given["description"],
    ).render()


def golden(name: str, text: str) -> str:
    """What the text is expected to be."""
    expected = HERE / "golden" / name
    if os.environ.get("GOLDEN_UPDATE"):
        expected.parent.mkdir(exist_ok=True)
        expected.write_text(text)
    return expected.read_text()


def rest_of(given: dict, packages: list[str]) -> str:
    """What a system gets besides the source, as comments."""
    text = f"# key: {given['key_url']}\n# {given['fingerprint']}\n# packages: {' '.join(packages)}\n"
    return text + (f"# instead of: {' '.join(given['conflicts'])}\n" if given.get("conflicts") else "")


@pytest.mark.parametrize("role", ["docker", "nvidia_container_toolkit"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_sources(role: str, system: str) -> None:
    given = arguments(role, system)
    packages = packages_apt.pin(given["packages"], given["version"], given.get("pinned") or given["packages"])
    text = source(given) + rest_of(given, packages)
    assert text == golden(f"{role}-{system}.sources", text)


@pytest.mark.parametrize("role", ["docker", "nvidia_container_toolkit"])
@pytest.mark.parametrize("system", RED_HATS)
@pytest.mark.parametrize(("held", "settings"), [("", {}), ("-held", {"docker_version": "5:29.8", "hold": True})])
def test_red_hat_sources(role: str, system: str, held: str, settings: dict) -> None:
    given = red_hat(role, system, **{**settings, f"{role}_hold": settings.get("hold")})
    packages = packages_rpm.missing(given["packages"], given["version"], given.get("pinned") or given["packages"], {})
    text = packages_rpm.Source(
        repo_id=given.get("repo_id") or given["name"],
        title=given.get("title") or given["name"],
        uri=given["uri"],
        key_path=f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{given['name']}",
        packages_signed="packages" in given["signed"],
        metadata_signed="metadata" in given["signed"],
        excludes=tuple(given["packages"]) if given["hold"] else (),
        comment=given["description"],
    ).render() + rest_of(given, packages)
    assert text == golden(f"{role}-{system}{held}.repo", text)


@pytest.mark.parametrize("role", ["docker", "nvidia_container_toolkit"])
@pytest.mark.parametrize("family", ["debian", "redhat"])
def test_teardown_looks_where_the_sources_are_written(role: str, family: str) -> None:
    given = arguments(role, "debian12-amd64") if family == "debian" else red_hat(role, "rocky9")
    name = given["name"]
    sources, key = {
        "debian": (packages_apt.SOURCES, f"{packages_apt.KEYRINGS}/{name}.asc"),
        "redhat": (packages_rpm.SOURCES, f"{packages_rpm.KEYS}/RPM-GPG-KEY-{name}"),
    }[family]
    # A teardown gathers no more of the facts.
    facts = {"os_family": {"debian": "Debian", "redhat": "RedHat"}[family]}
    handed_over = handed(role, "teardown")
    templar = Templar(loader=DataLoader(), variables=variables_of(role, facts, **handed_over))
    assert templar.template(handed_over["__packages_repository_name"]) == name
    assert templar.template(handed_over["__packages_names"]) == given["packages"]
    find, *_others, files = read("packages", "tasks/remove_repository.yml")
    found = templar.template(find["ansible.builtin.find"])
    ending = {"debian": "sources", "redhat": "repo"}[family]
    assert (found["paths"], found["patterns"]) == ([sources], [f"{name}.{ending}"])
    # Its words are in the comment that the role has written at the top.
    assert re.fullmatch(found["contains"], given["description"].splitlines()[0])
    templar.available_variables |= {"__packages_sources": {"files": [{"path": "that file"}]}}
    assert templar.template(files["loop"]) == [key, "that file"]


def test_a_mirror_is_one_variable() -> None:
    given = arguments("docker", "ubuntu2404-amd64", docker_apt_url="https://mirror.example.com/docker")
    assert (given["uri"], given["key_url"]) == (
        "https://mirror.example.com/docker",
        "https://mirror.example.com/docker/gpg",
    )


SETTLED = {
    "config_settled": True,
    "settings_due": "",
    "service": {"known": True, "active": True, "enabled": True, "drop_ins": []},
}
DROP_IN = "/etc/systemd/system/docker.service.d/gpunode-proxy.conf"


@pytest.mark.parametrize(
    ("answer", "service", "proxy", "expected"),
    [
        ({}, {}, {}, True),
        ({}, {"known": False, "active": False, "enabled": False}, {}, True),  # a Docker that is no service
        ({}, {"active": False}, {}, False),
        ({}, {"enabled": False}, {}, False),
        ({"config_settled": False}, {}, {}, False),
        ({"settings_due": "restarted"}, {}, {}, False),
        ({}, {}, {"http": "http://p:1"}, False),  # what the files hold is compared by whoever writes them
        ({}, {"drop_ins": [DROP_IN]}, {}, False),
    ],
)
def test_when_docker_is_as_it_should_be(answer: dict, service: dict, proxy: dict, expected: bool) -> None:
    variables = read("docker", "vars/main.yml")
    engine = {**SETTLED, **answer, "service": {**SETTLED["service"], **service}}
    variables |= {"docker_engine": engine, "docker_proxy": proxy}
    assert Templar(loader=DataLoader(), variables=variables).template(variables["__docker_configured"]) is expected


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
    templar = Templar(loader=DataLoader(), variables={**read("docker", "vars/main.yml"), "docker_proxy": proxy})
    text = templar.template(template, overrides={"trim_blocks": True, "lstrip_blocks": True})
    assert [line for line in text.splitlines() if not line.startswith("#")] == lines


LOADED = {
    "open": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U16)\n",
    "own": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC version:  gcc version 12.2.0\n",
    "short": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95  Tue Sep 23\n",
    "none": "",
}


@pytest.mark.parametrize(
    ("loaded", "spec", "anew"),
    [
        ("open", "- hostPath: /usr/lib/libcuda.so.580.95.05\n", False),
        ("own", "- libcuda.so.580.95.05::/usr/lib/libcuda.so.1\n", False),
        ("open", "- hostPath: /usr/lib/libcuda.so.570.86.15\n", True),
        ("open", "- hostPath: /usr/lib/libcuda.so.580.95\n", True),
        ("short", "- hostPath: /usr/lib/libcuda.so.580.95.05\n", True),
        ("open", None, True),
        ("none", "- hostPath: /usr/lib/libcuda.so.580.95.05\n", False),
        (None, None, False),
    ],
)
def test_when_the_description_of_gpus_is_made_anew(tmp_path, loaded: str | None, spec: str | None, anew: bool) -> None:
    unit = (ROLES / "nvidia_container_toolkit/files/gpunode-cdi-current.service").read_text()
    (condition,) = (line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecCondition="))
    driver, described = tmp_path / "version", tmp_path / "nvidia.yaml"
    for path, text in ((driver, None if loaded is None else LOADED[loaded]), (described, spec)):
        if text is not None:
            path.write_text(text)
    command = condition.replace("$$", "$").replace("/proc/driver/nvidia/version", str(driver))
    command = command.replace("/var/run/cdi/nvidia.yaml", str(described))
    assert (subprocess.run(shlex.split(command), check=False).returncode == 0) is anew
