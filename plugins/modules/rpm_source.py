# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rpm_source
short_description: A dnf repository that one key alone may sign
version_added: 1.0.0
description:
  - Writes a repository to C(/etc/yum.repos.d) and its key to C(/etc/pki/rpm-gpg).
  - The key is trusted only when its fingerprint is the one given. It is fetched only when the key on the node is
    another or none, so that a node with the right key needs no network.
  - Before anything is written, dnf itself is asked whether it takes the repository by that key. One that would stop dnf
    for every package is refused and never lands.
  - Says in the same step which packages are missing, so that M(ansible.builtin.dnf), which reads the metadata of all
    repositories, needs to run only then.
  - The counterpart of M(gpunode.llm.apt_source).
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Fetches and checks the key, asks the repository, and writes nothing.
    support: full
  diff_mode:
    description: Shows the repository and the key's fingerprint, before and after.
    support: full
options:
  name:
    description: The name of both files, without what the system puts before and after it.
    type: str
    required: true
  repo_id:
    description: What dnf calls the repository; O(name) by default.
    type: str
  title:
    description: What dnf shows to people; O(name) by default.
    type: str
  description:
    description: A comment at the top of the file.
    type: str
    default: ""
  uri:
    description: Where the repository is. dnf fills in C($basearch).
    type: str
    required: true
  signed:
    description:
      - What the publisher signs, and dnf therefore checks. The metadata has a hash of each package.
    type: list
    elements: str
    choices: [packages, metadata]
    default: [packages]
  key_url:
    description: Where the key is, armored. A C(file://) address is a file on the node.
    type: str
  key:
    description: The key itself, armored, in place of O(key_url).
    type: str
  fingerprint:
    description: The fingerprint that the key must have, with or without spaces.
    type: str
    required: true
  timeout:
    description: How long to wait for the key, in seconds.
    type: int
    default: 30
  ca_certificate:
    description: As in M(gpunode.llm.apt_source).
    type: str
  packages:
    description: Packages to look for.
    type: list
    elements: str
    default: []
  version:
    description:
      - The version of O(pinned), whole, or as much of its beginning as matters (V(29.8) stands for V(29.8.1-1.el9) and
        not for V(29.80)). An epoch is not looked at. Any version will do without it.
    type: str
  pinned:
    description: Those of O(packages) that O(version) is the version of; all of them by default.
    type: list
    elements: str
  hold:
    description:
      - Whether dnf leaves O(packages) as they are at an upgrade, by an C(excludepkgs) in this repository. Without a
        value what stands there stays.
    type: bool
  unless_exists:
    description:
      - Nothing is done where this program is there and the repository's file is not one that O(description) began, so
        that a node keeps what it came with.
    type: path
  conflicts:
    description: Packages that must not be there.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Docker's repository
  gpunode.llm.rpm_source:
    name: docker-ce
    repo_id: docker-ce-stable
    uri: https://download.docker.com/linux/rhel/9/$basearch/stable
    key_url: https://download.docker.com/linux/rhel/gpg
    fingerprint: 060A 61C5 1B55 8A7F 742B 77AA C52F EB6B 621E 9F35
    packages: [docker-ce, docker-ce-cli]
    conflicts: [podman-docker]
  register: docker_source

- name: Docker's packages
  ansible.builtin.dnf:
    name: "{{ docker_source.missing }}"
  when: docker_source.missing | length > 0
"""

RETURN = r"""
missing:
  description:
    - Those of O(packages) that are not installed, or not at that version, as M(ansible.builtin.dnf) takes them.
  type: list
  elements: str
  returned: success
versions:
  description: The installed ones of O(packages) and O(conflicts), and their versions without an epoch.
  type: dict
  returned: success
conflicting:
  description: The entries of O(conflicts) that are installed.
  type: list
  elements: str
  returned: success
repo_id:
  description: What dnf calls the repository.
  type: str
  returned: success
kept:
  description: Whether the node keeps what it came with (O(unless_exists)).
  type: bool
  returned: success
source_path:
  description: The file of the repository.
  type: str
  returned: success
key_path:
  description: The file of the key.
  type: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils.node import files as node_files
from ..module_utils.packages import key as packages_key, repository as packages_repository, rpm as packages_rpm


def ask(module, key):
    """A repository that dnf does not take would stop it for every package: dnf is asked before it is written."""
    said = packages_rpm.objection(module.params, key, module.run_command)
    if said:
        module.fail_json(msg=said)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "repo_id": {"type": "str"},
            "title": {"type": "str"},
            "description": {"type": "str", "default": ""},
            "uri": {"type": "str", "required": True},
            "signed": {
                "type": "list",
                "elements": "str",
                "choices": ["packages", "metadata"],
                "default": ["packages"],
            },
            "key_url": {"type": "str", "no_log": False},
            "key": {"type": "str", "no_log": False},
            "fingerprint": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 30},
            "ca_certificate": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str"},
            "pinned": {"type": "list", "elements": "str"},
            "hold": {"type": "bool"},
            "unless_exists": {"type": "path"},
            "conflicts": {"type": "list", "elements": "str", "default": []},
        },
        required_one_of=[("key_url", "key")],
        supports_check_mode=True,
    )
    given = module.params
    source_path, key_path = packages_rpm.paths(given["name"])
    paths = {"repo_id": packages_rpm.repo_id(given), "source_path": source_path, "key_path": key_path}
    found = packages_rpm.look(given, module.run_command)
    try:
        packages_key.normal(given["fingerprint"])
        if not given["signed"]:
            raise ValueError("signed names nothing, and what nobody signed is not installed")
        if packages_rpm.kept(given):
            module.exit_json(changed=False, kept=True, **paths, **{**found, "missing": [], "conflicting": []})
        source, source_diff = packages_rpm.source_change(given)
        key, key_diff = packages_rpm.key_change(given, open_url)
    except ValueError as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.")
    if found["missing"] or packages_repository.matters(source_diff) or packages_repository.matters(key_diff):
        ask(module, key or node_files.bytes_of(key_path))
    if not module.check_mode:
        # The key first: dnf stops at a repository without it.
        for path, data in ((key_path, key), (source_path, source)):
            if data:
                packages_repository.write(path, data, module.atomic_move)
    module.exit_json(
        changed=bool(key or source),
        kept=False,
        diff=[diff for diff in (key_diff, source_diff) if diff],
        **paths,
        **found,
    )


if __name__ == "__main__":
    main()
