# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rpm_source
short_description: Manage a dnf repository that only one key may sign
version_added: 1.0.0
description:
  - Writes a repository to C(/etc/yum.repos.d) and its key to C(/etc/pki/rpm-gpg).
  - Trusts the key only if it has the given fingerprint. Fetches the key only if the node has no key or a different
    one. So a node with the right key needs no network.
  - Before it writes anything, it runs dnf to check that dnf accepts the repository with this key. It refuses a
    repository that would break dnf for every package.
  - Also returns which packages are missing, so M(ansible.builtin.dnf), which reads the metadata of all repositories,
    only has to run if there are any.
  - M(gpunode.llm.apt_source) does the same for apt.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Fetches and checks the key, checks the repository, and writes nothing.
    support: full
  diff_mode:
    description: Shows the repository and the fingerprint of the key, before and after.
    support: full
options:
  name:
    description: The name of both files, without prefix and suffix.
    type: str
    required: true
  repo_id:
    description: The ID of the repository in dnf. The default is O(name).
    type: str
  title:
    description: The title of the repository in dnf. The default is O(name).
    type: str
  description:
    description: A comment at the top of the file.
    type: str
    default: ""
  uri:
    description: The URL of the repository. dnf replaces C($basearch).
    type: str
    required: true
  signed:
    description:
      - The files that the publisher signs, and that dnf checks. Signed metadata has a hash of each package.
    type: list
    elements: str
    choices: [packages, metadata]
    default: [packages]
  key_url:
    description: The URL of the armored key. A C(file://) URL is a file on the node.
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
    description: The packages to look up.
    type: list
    elements: str
    default: []
  version:
    description:
      - The version that the packages in O(pinned) must have. It can be a whole version or its first parts. V(29.8)
        matches V(29.8.1-1.el9) but not V(29.80). The epoch does not count. Without it, any version is accepted.
    type: str
  pinned:
    description: The packages that must have O(version). The default is all of O(packages).
    type: list
    elements: str
  hold:
    description:
      - Whether dnf must not upgrade O(packages). The module sets C(excludepkgs) in this repository.
      - Without a value, the present setting stays.
    type: bool
  unless_exists:
    description:
      - The path of a program. If it exists, and the file of the repository does not begin with O(description), the
        module does nothing. So a node keeps the packages that it came with.
    type: path
  conflicts:
    description: Packages that must not be installed.
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
    - The packages that are not installed or have the wrong version, in the form that M(ansible.builtin.dnf) takes.
  type: list
  elements: str
  returned: success
versions:
  description: The installed packages of O(packages) and O(conflicts), with their versions without the epoch.
  type: dict
  returned: success
conflicting:
  description: The entries of O(conflicts) that are installed.
  type: list
  elements: str
  returned: success
repo_id:
  description: The ID of the repository in dnf.
  type: str
  returned: success
kept:
  description: Whether the module did nothing because of O(unless_exists).
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

OPTIONS = {
    **packages_repository.OPTIONS,
    "repo_id": {"type": "str"},
    "title": {"type": "str"},
    "signed": {"type": "list", "elements": "str", "choices": ["packages", "metadata"], "default": ["packages"]},
    "hold": {"type": "bool"},
}


def check_with_dnf(module, key):
    """Have dnf check the repository before the module writes it: a wrong one breaks dnf for every package."""
    error = packages_rpm.objection(module.params, key, module.run_command)
    if error:
        module.fail_json(msg=error)


def main():
    module = AnsibleModule(
        argument_spec=OPTIONS, required_one_of=packages_repository.REQUIRED_ONE_OF, supports_check_mode=True
    )
    given = module.params
    source_path, key_path = packages_rpm.paths(given["name"])
    paths = {"repo_id": packages_rpm.repo_id(given), "source_path": source_path, "key_path": key_path}
    installed = packages_rpm.look(given, module.run_command)
    try:
        packages_key.normal(given["fingerprint"])
        if not given["signed"]:
            raise ValueError("signed is empty, and dnf must not install unsigned packages")
        if packages_rpm.kept(given):
            module.exit_json(changed=False, kept=True, **paths, **{**installed, "missing": [], "conflicting": []})
        source, source_diff = packages_rpm.source_change(given)
        key, key_diff = packages_rpm.key_change(given, open_url)
    except ValueError as error:
        module.fail_json(msg=f"{str(error).rstrip('.')}.")
    if installed["missing"] or packages_repository.matters(source_diff) or packages_repository.matters(key_diff):
        check_with_dnf(module, key or node_files.bytes_of(key_path))
    if not module.check_mode:
        packages_repository.write_both(((key_path, key), (source_path, source)), module.atomic_move)
    module.exit_json(
        changed=bool(key or source),
        kept=False,
        diff=[diff for diff in (key_diff, source_diff) if diff],
        **paths,
        **installed,
    )


if __name__ == "__main__":
    main()
