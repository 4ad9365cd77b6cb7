# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Manage an apt repository that only one key may sign
version_added: 1.0.0
description:
  - Writes a deb822 source to C(/etc/apt/sources.list.d) and its key to C(/etc/apt/keyrings).
  - Trusts the key only if it has the given fingerprint. Fetches the key only if the node has no key or a different
    one. So a node with the right key needs no network.
  - Before it writes anything, it runs apt to check that apt can read the source together with the other sources of the
    node, and that apt accepts the repository with this key. It refuses a source that would break apt for every package.
  - For this check apt reads only this repository. That takes about a second; reading all repositories takes far longer.
    The result also says whether the package lists of the other repositories are fresh enough.
  - Needs neither gpg nor python3-debian on the node, unlike M(ansible.builtin.deb822_repository). It also returns which
    packages are missing, so M(ansible.builtin.apt) only has to run if there are any.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Fetches and checks the key, checks the repository, and writes nothing.
    support: full
  diff_mode:
    description: Shows the source and the fingerprint of the key, before and after.
    support: full
options:
  name:
    description: The name of both files, without the suffix.
    type: str
    required: true
  description:
    description: A comment at the top of the source.
    type: str
    default: ""
  uri:
    description: The URL of the repository.
    type: str
    required: true
  suite:
    description: The suite, or a path that ends in C(/) for a flat repository.
    type: str
    required: true
  components:
    description: The components; none for a flat repository.
    type: list
    elements: str
    default: []
  architectures:
    description: The architectures to use, by Debian's names, such as V(amd64).
    type: list
    elements: str
    default: []
  key_url:
    description: The URL of the key, armored or not. A C(file://) URL is a file on the node.
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
    description:
      - The certificate (PEM) of an authority to trust for the checks, in addition to the authorities of the system. It
        is for a check that runs before the play has added the authority to the store of the system.
    type: str
  packages:
    description: The packages to look up.
    type: list
    elements: str
    default: []
  version:
    description:
      - The version that the packages in O(pinned) must have. It can be a whole version or its first parts. V(5:29.8)
        matches V(5:29.8.1-1~debian.12) but not V(5:29.80). Without it, any version is accepted.
    type: str
  pinned:
    description: The packages that must have O(version). The default is all of O(packages).
    type: list
    elements: str
  unless_exists:
    description:
      - The path of a program. If it exists and this module has not written a source, the module does nothing. So a
        node keeps the packages that it came with.
    type: path
  conflicts:
    description: Packages that must not be installed.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Docker's repository
  gpunode.llm.apt_source:
    name: docker
    uri: https://download.docker.com/linux/debian
    suite: bookworm
    components: [stable]
    architectures: [amd64]
    key_url: https://download.docker.com/linux/debian/gpg
    fingerprint: 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
    packages: [docker-ce, docker-ce-cli]
    conflicts: [docker.io]
  register: docker_source

- name: Docker's packages
  ansible.builtin.apt:
    name: "{{ docker_source.missing }}"
    update_cache: "{{ not docker_source.lists_fresh }}"
  when: docker_source.missing | length > 0
"""

RETURN = r"""
missing:
  description:
    - The packages that are not installed or have the wrong version, in the form that M(ansible.builtin.apt) takes.
  type: list
  elements: str
  returned: success
versions:
  description: The installed packages of O(packages) and O(conflicts), with their versions.
  type: dict
  returned: success
held:
  description: The installed packages of O(packages) that apt holds at their version.
  type: list
  elements: str
  returned: success
conflicting:
  description: The entries of O(conflicts) that are installed.
  type: list
  elements: str
  returned: success
lists_fresh:
  description:
    - Whether the package lists of all sources, including this one, are less than a day old. Otherwise the next step
      must update them.
  type: bool
  returned: success
kept:
  description: Whether the module did nothing because of O(unless_exists).
  type: bool
  returned: success
source_path:
  description: The file of the source.
  type: str
  returned: success
key_path:
  description: The file of the key.
  type: str
  returned: success
"""

import glob
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ..module_utils.node import files as node_files
from ..module_utils.packages import apt as packages_apt, key as packages_key, repository as packages_repository

LISTS_MAX_AGE_S = 86400
LOCK_TIMEOUT_S = 600
OPTIONS = {
    **packages_repository.OPTIONS,
    "suite": {"type": "str", "required": True},
    "components": {"type": "list", "elements": "str", "default": []},
    "architectures": {"type": "list", "elements": "str", "default": []},
}


def lists_folder(module):
    """The folder of apt's package lists. APT_CONFIG in the environment of the task can change it."""
    _rc, out, _err = module.run_command(["apt-config", "shell", "lists", "Dir::State::Lists/d"])
    return out.partition("=")[2].strip().strip("'").rstrip("/")


def check_with_apt(module, key):
    """Have apt check the source before the module writes it. Returns whether the other package lists are fresh.

    A source that apt cannot read or does not accept would break apt for every package. The error is reported here, so
    that it names this source and does not appear later, when some other step reads all sources.
    """
    age = time.time() - max(
        [os.path.getmtime(path) for path in glob.glob(f"{lists_folder(module)}/*_InRelease")], default=0
    )
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with packages_apt.staged(module.params, key) as folder:
        refused = packages_apt.refusal(folder, module.params, module.run_command)
        if refused:
            module.fail_json(msg=refused)
        while True:
            rc, out, err = module.run_command(packages_apt.update(folder, trace=not module.check_mode))
            if rc == 0:
                # A negative age means that the clock was set back after the lists were fetched.
                return 0 <= age <= LISTS_MAX_AGE_S and not module.check_mode
            # A fresh cloud node upgrades itself in its first minutes.
            if "/lists/lock" not in err or time.monotonic() > deadline:
                module.fail_json(msg=packages_apt.rejection(module.params, err), stdout=out, stderr=err)
            time.sleep(3)


def apt_config_pending(module):
    """Whether this is check mode and an earlier step of the play, such as a bundle, has yet to write APT_CONFIG."""
    path = os.environ.get("APT_CONFIG", "")
    return module.check_mode and bool(path) and not os.path.exists(path)


def main():
    module = AnsibleModule(
        argument_spec=OPTIONS, required_one_of=packages_repository.REQUIRED_ONE_OF, supports_check_mode=True
    )
    try:
        packages_key.normal(module.params["fingerprint"])
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    source_path, key_path = packages_apt.paths(module.params["name"])
    installed = packages_apt.look(module.params, module.run_command)
    if packages_apt.kept(module.params):
        kept = {**installed, "missing": [], "conflicting": [], "lists_fresh": False}
        module.exit_json(changed=False, kept=True, source_path=source_path, key_path=key_path, **kept)
    try:
        source, source_diff = packages_apt.source_change(module.params)
        key, key_diff = packages_apt.key_change(module.params, open_url)
    except ValueError as error:
        module.fail_json(msg=str(error))
    needs_check = (
        installed["missing"] or packages_repository.matters(source_diff) or packages_repository.matters(key_diff)
    )
    fresh = (
        check_with_apt(module, key or node_files.bytes_of(key_path))
        if needs_check and not apt_config_pending(module)
        else False
    )
    if not module.check_mode:
        packages_repository.write_both(((key_path, key), (source_path, source)), module.atomic_move)
    module.exit_json(
        lists_fresh=fresh,
        changed=bool(key or source),
        kept=False,
        diff=[diff for diff in (key_diff, source_diff) if diff],
        source_path=source_path,
        key_path=key_path,
        **installed,
    )


if __name__ == "__main__":
    main()
