# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: router_info
short_description: Collect the state of the router on a node
version_added: 1.1.0
description:
  - Reports whether the router's packages are installed, by the list that the role P(gpunode.llm.router#role) installed
    last, whether they can be installed, and how many workers its processes pass requests to.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  venv:
    description: The router's virtual environment.
    type: path
    default: /opt/gpunode-router
  requirements:
    description: The list of packages that should be installed.
    type: str
    default: ""
  wheels:
    description: A folder of wheels that is used in place of an index.
    type: path
  index_url:
    description: The index to ask for smg. By default PyPI, unless pip's own settings on the node may name another.
    type: str
    default: ""
  ask_index:
    description: Whether to ask an index. Arguments of pip may name another source.
    type: bool
    default: true
  ca_path:
    description: A bundle of certificate authorities to trust instead of the system's own.
    type: path
  folder:
    description: The router's folder.
    type: path
    default: /etc/gpunode/router
"""

EXAMPLES = r"""
- name: Collect the state of the router
  gpunode.llm.router_info:
  register: router
"""

RETURN = r"""
installed:
  description: Whether these packages are installed. False while an installation is unfinished.
  type: bool
  returned: always
obstacle:
  description: Why smg cannot be installed. Empty if it can, and if any version of it is installed.
  type: str
  returned: always
  sample: smg has no wheel for ppc64le
here:
  description: Whether the units of the router are on the node.
  type: bool
  returned: always
user:
  description: Whether the system user of the router exists.
  type: bool
  returned: always
processes:
  description: For each process that answers, its C(unit), its C(port), and its C(workers) with the state of each.
  type: list
  elements: dict
  returned: always
nodes:
  description: The workers by node, as the record has them.
  type: dict
  returned: always
"""

import os
import pwd

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import opener as hub_opener
from ..module_utils.instance import names, router, router_source
from ..module_utils.node import files as node_files

USER = "gpunode-router"
TIMEOUT_S = 20


def user_exists(name):
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False


def obstacle(module):
    """Why smg cannot be had; asked only where there is none."""
    params = module.params
    python = module.run_command(["python3", "-c", "import sys; print(*sys.version_info[:2])"])[1]
    if trouble := router_source.obstacle(os.uname().machine, router_source.version(python)):
        return trouble
    if params["wheels"]:
        return router_source.in_folder(params["wheels"])
    index = (params["index_url"] or router_source.pip_index()) if params["ask_index"] else ""
    return router_source.at_index(index, hub_opener.opener(TIMEOUT_S, params["ca_path"]))


def main():
    module = AnsibleModule(
        argument_spec={
            "venv": {"type": "path", "default": "/opt/gpunode-router"},
            "requirements": {"type": "str", "default": ""},
            "wheels": {"type": "path"},
            "index_url": {"type": "str", "default": ""},
            "ask_index": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "folder": {"type": "path", "default": names.ROUTER_DIR},
        },
        supports_check_mode=True,
    )
    folder, venv = module.params["folder"], module.params["venv"]
    program = os.path.exists(os.path.join(venv, "bin", "python"))
    listed = node_files.text_of(os.path.join(venv, "requirements.txt"))
    said = [
        (process, process.states())
        for process in router.processes(os.path.join(folder, os.path.basename(names.ROUTER_SETTINGS)))
    ]
    try:
        nodes = router.read(os.path.join(folder, os.path.basename(names.ROUTER_NODES)))
    except ValueError as error:
        module.fail_json(msg=f"{error}.")
    module.exit_json(
        changed=False,
        installed=program and listed.strip() == module.params["requirements"].strip(),
        obstacle="" if program and listed else obstacle(module),
        here=os.path.exists(os.path.join(names.UNIT_DIR, names.ROUTER_UNIT)),
        user=user_exists(USER),
        processes=[
            {"unit": process.unit, "port": process.port, "workers": states}
            for process, states in said
            if states is not None
        ],
        nodes={node: router.rows(workers) for node, workers in nodes.items()},
    )


if __name__ == "__main__":
    main()
