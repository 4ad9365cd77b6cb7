# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: An apt repository that one key alone may sign
version_added: 1.0.0
description:
  - Writes a deb822 source to C(/etc/apt/sources.list.d) and its key to C(/etc/apt/keyrings).
  - The key is trusted only when its fingerprint is the one given. It is fetched only when the key on the node is
    another or none, so that a node with the right key needs no network.
  - Before anything is written, apt itself is asked whether it reads the source beside those that the node has, and
    takes the repository by that key. A source that would stop apt for every package is refused and never lands.
  - apt reads this repository alone then, which takes a second where reading all takes many, and says whether the lists
    of the others are worth using.
  - Needs neither gpg nor python3-debian on the node, which M(ansible.builtin.deb822_repository) does, and says in the
    same step which packages are missing, so that M(ansible.builtin.apt) needs to run only then.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Fetches and checks the key, asks the repository, and writes nothing.
    support: full
  diff_mode:
    description: Shows the source and the key's fingerprint, before and after.
    support: full
options:
  name:
    description: The name of both files, without their ending.
    type: str
    required: true
  description:
    description: A comment at the top of the source.
    type: str
    default: ""
  uri:
    description: Where the repository is.
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
    description: Debian's names of the architectures to take packages for.
    type: list
    elements: str
    default: []
  key_url:
    description: Where the key is, armored or not. A C(file://) address is a file on the node.
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
      - The certificate (PEM) of an authority to trust in the questions, besides the system's own. For a check of what a
        play does after it has brought the authority to the system's store.
    type: str
  packages:
    description: Packages to look for.
    type: list
    elements: str
    default: []
  version:
    description:
      - The version of O(pinned), whole, or as much of its beginning as matters (V(5:29.8) stands for
        V(5:29.8.1-1~debian.12) and not for V(5:29.80)). Any version will do without it.
    type: str
  pinned:
    description: Those of O(packages) that O(version) is the version of; all of them by default.
    type: list
    elements: str
  unless_exists:
    description:
      - Nothing is done where this program is there and no source of this module is, so that a node keeps what it came
        with.
    type: path
  conflicts:
    description: Packages that must not be there.
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
    - Those of O(packages) that are not installed, or not at that version, as M(ansible.builtin.apt) takes them.
  type: list
  elements: str
  returned: success
versions:
  description: The installed ones of O(packages) and O(conflicts), and their versions.
  type: dict
  returned: success
held:
  description: The installed ones of O(packages) that apt is told to leave as they are.
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
    - Whether apt has lists of all its sources that are younger than a day, this one's included. Otherwise the next step
      has to read them all.
  type: bool
  returned: success
kept:
  description: Whether the node keeps what it came with (O(unless_exists)).
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

LISTS_LAST = 86400
LOCK_LASTS = 600


def lists(module):
    """Where apt keeps them: APT_CONFIG in the task's environment may say elsewhere."""
    _rc, out, _err = module.run_command(["apt-config", "shell", "lists", "Dir::State::Lists/d"])
    return out.partition("=")[2].strip().strip("'").rstrip("/")


def ask(module, key):
    """What apt says of the source before anything of it is written; whether the other lists can stay as they are.

    A source that apt does not read, or does not take, would stop it for every package. Here too is said what is wrong
    with this one, and not by whoever reads them all.
    """
    age = time.time() - max([os.path.getmtime(path) for path in glob.glob(f"{lists(module)}/*_InRelease")], default=0)
    deadline = time.monotonic() + LOCK_LASTS
    with packages_apt.staged(module.params, key) as folder:
        refused = packages_apt.refusal(folder, module.params, module.run_command)
        if refused:
            module.fail_json(msg=refused)
        while True:
            rc, out, err = module.run_command(packages_apt.update(folder, trace=not module.check_mode))
            if rc == 0:
                # Lists from the future were fetched before the clock was set back.
                return 0 <= age <= LISTS_LAST and not module.check_mode
            # A fresh cloud node upgrades itself in its first minutes.
            if "/lists/lock" not in err or time.monotonic() > deadline:
                module.fail_json(msg=packages_apt.rejection(module.params, err), stdout=out, stderr=err)
            time.sleep(3)


def unsettled(module):
    """Whether this is a check of a play that first gives apt settings of its own, as a bundle does."""
    path = os.environ.get("APT_CONFIG", "")
    return module.check_mode and bool(path) and not os.path.exists(path)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "description": {"type": "str", "default": ""},
            "uri": {"type": "str", "required": True},
            "suite": {"type": "str", "required": True},
            "components": {"type": "list", "elements": "str", "default": []},
            "architectures": {"type": "list", "elements": "str", "default": []},
            "key_url": {"type": "str", "no_log": False},
            "key": {"type": "str", "no_log": False},
            "fingerprint": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 30},
            "ca_certificate": {"type": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str"},
            "pinned": {"type": "list", "elements": "str"},
            "unless_exists": {"type": "path"},
            "conflicts": {"type": "list", "elements": "str", "default": []},
        },
        required_one_of=[("key_url", "key")],
        supports_check_mode=True,
    )
    try:
        packages_key.normal(module.params["fingerprint"])
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    source_path, key_path = packages_apt.paths(module.params["name"])
    if packages_apt.kept(module.params):
        kept = {
            **packages_apt.look(module.params, module.run_command),
            "missing": [],
            "conflicting": [],
            "lists_fresh": False,
        }
        module.exit_json(changed=False, kept=True, source_path=source_path, key_path=key_path, **kept)
    try:
        source, source_diff = packages_apt.source_change(module.params)
        key, key_diff = packages_apt.key_change(module.params, open_url)
    except ValueError as error:
        module.fail_json(msg=str(error))
    found = packages_apt.look(module.params, module.run_command)
    asks = found["missing"] or packages_repository.matters(source_diff) or packages_repository.matters(key_diff)
    fresh = ask(module, key or node_files.bytes_of(key_path)) if asks and not unsettled(module) else False
    if not module.check_mode:
        # The key first: a source without it would stop every apt on the node.
        for path, data in ((key_path, key), (source_path, source)):
            if data:
                packages_repository.write(path, data, module.atomic_move)
    module.exit_json(
        lists_fresh=fresh,
        changed=bool(key or source),
        kept=False,
        diff=[diff for diff in (key_diff, source_diff) if diff],
        source_path=source_path,
        key_path=key_path,
        **found,
    )


if __name__ == "__main__":
    main()
