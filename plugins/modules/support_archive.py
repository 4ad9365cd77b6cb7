# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: support_archive
short_description: Collect the data that support needs about a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
description:
  - Writes units, journals, configuration, and the output of systemd, Docker, the NVIDIA driver and the kernel, to one
    tar.gz.
  - The archive contains no secrets. Every API key, token and password from the node or from O(secrets) is blotted out
    wherever it occurs, in every encoding that programs use. So is text that looks like a secret, or that follows a name
    such as C(LDAP_PW) or C(accessKey). Environment files keep only the names of their variables. Environments in units
    and command lines keep only the values of variables that are known to hold no secret.
  - If a program is missing, fails or does not end, its error is in the archive, and the module does not fail.
attributes:
  check_mode:
    description: Collects the data, and writes nothing.
    support: full
  diff_mode:
    description: An archive is always new, so there is nothing to compare it with.
    support: none
options:
  dest:
    description: The file to write on the node. Only root can read it.
    type: path
    required: true
  name:
    description: The folder in the archive, which is the node's name.
    type: str
    required: true
  lines:
    description: The number of lines from the end of each journal.
    type: int
    default: 5000
  secrets:
    description: Further secrets, such as those of the inventory.
    type: list
    elements: str
    default: []
  token_path:
    description: A file that holds Hugging Face's token, beside the usual places.
    type: path
  config_dir:
    description: The folder that holds the instances' files, beside C(/etc/vllm).
    type: path
  texts:
    description: Further texts, by their file names in the archive, such as the plan from the controller.
    type: dict
    default: {}
  timeout_s:
    description: How long each program may take, in seconds.
    type: int
    default: 30
seealso:
  - module: gpunode.llm.vllm_status
"""

EXAMPLES = r"""
- name: Collect the support data
  gpunode.llm.support_archive:
    dest: /var/tmp/support.tar.gz
    name: "{{ inventory_hostname }}"
    secrets: "{{ vllm_api_keys }}"

- name: Fetch the archive to the controller
  ansible.builtin.fetch:
    src: /var/tmp/support.tar.gz
    dest: "support/{{ inventory_hostname }}.tar.gz"
    flat: true
"""

RETURN = r"""
files:
  description: The files in the archive.
  type: list
  elements: str
  returned: always
bytes:
  description: The size of the archive in bytes.
  type: int
  returned: always
"""

import glob
import os
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import commands, files as node_files
from ..module_utils.support import archive, redact

#: The most bytes to read of one file. No configuration file is that large.
READ_LIMIT = 16 << 20


def surroundings(module):
    timeout = str(module.params["timeout_s"])

    def run(command):
        if not module.get_bin_path(command[0]):
            return f"{command[0]} is not there\n"
        rc, out, err = module.run_command(commands.within(timeout, *command), errors="replace")
        ended = f"\n({' '.join(command)} did not end within {timeout} s)\n" if rc in commands.TIMED_OUT else ""
        return out + (f"\n{err}" if err.strip() else "") + ended

    def find(pattern):
        return sorted(path for path in glob.glob(pattern) if os.path.isfile(path))

    def read(path):
        try:
            return node_files.read_text(path, "replace", READ_LIMIT)
        except OSError as error:
            return f"(cannot be read: {error})\n"

    return archive.Surroundings(run, find, read)


def further_places(params):
    """The further places of secrets that the options name."""
    places = {params["token_path"]: redact.of_token} if params["token_path"] else {}
    if params["config_dir"]:
        places[os.path.join(params["config_dir"], "*.env")] = redact.of_environment
        places[os.path.join(params["config_dir"], "*.keys.yaml")] = redact.of_list
        places[os.path.join(params["config_dir"], "*.yaml")] = redact.of_settings
    return places


def write(path, data):
    """Write the archive so that only root can ever read it."""
    node_files.write_atomically(path, data, mode=0o600, folder_mode=0o700)


def main():
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "lines": {"type": "int", "default": 5000},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "token_path": {"type": "path", "no_log": False},
            "config_dir": {"type": "path"},
            "texts": {"type": "dict", "default": {}},
            "timeout_s": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params, node = module.params, surroundings(module)
    known = archive.secrets(node, further_places(params)) | set(params["secrets"])
    units = archive.instance_units([*node.find(archive.UNITS), *node.find(archive.PEERS)])
    texts = {**archive.gather(node, units, params["lines"]), **params["texts"]}
    folder = params["name"].replace("/", "-")
    data = archive.pack(folder, archive.clean({name: str(text) for name, text in texts.items()}, known), time.time())
    if not module.check_mode:
        write(params["dest"], data)
    module.exit_json(changed=True, files=sorted(texts), bytes=len(data))


if __name__ == "__main__":
    main()
