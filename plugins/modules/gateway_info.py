# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Tell what a node has of the front before its engines
version_added: 1.0.0
description:
  - Says whether nginx is there, whether the role P(gpunode.llm.gateway#role) put it there, and whether a self-signed
    certificate is to be made.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
options:
  program:
    description: nginx.
    type: path
    default: /usr/sbin/nginx
  marker:
    description: The file in which the role writes that it installs nginx.
    type: path
    default: /var/lib/gpunode/gateway/nginx
  certificate:
    description: The certificate.
    type: path
    required: true
  certificate_key:
    description: Its key.
    type: path
    required: true
  names:
    description: Names and addresses that a self-signed certificate is for. Without them any that works will do.
    type: list
    elements: str
    default: []
seealso:
  - module: gpunode.llm.self_signed_certificate
"""

EXAMPLES = r"""
- name: See what is here
  gpunode.llm.gateway_info:
    certificate: /etc/gpunode/gateway/certificate.pem
    certificate_key: /etc/gpunode/gateway/certificate.key
  register: here
"""

RETURN = r"""
installed:
  description: Whether nginx is there, and not still being installed by the role.
  type: bool
  returned: always
ours:
  description: Whether the role put nginx there.
  type: bool
  returned: always
certificate_trouble:
  description: Why the certificate cannot be used, or is to be made anew. Empty when it is as it should be.
  type: str
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpunode.llm.plugins.module_utils import _certificate


def marked(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/sbin/nginx"},
            "marker": {"type": "path", "default": "/var/lib/gpunode/gateway/nginx"},
            "certificate": {"type": "path", "required": True},
            "certificate_key": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    pair, mark = (params["certificate"], params["certificate_key"]), marked(params["marker"])
    if params["names"]:
        trouble = _certificate.self_signed_trouble(*pair, params["names"], module.run_command)
    else:
        trouble = _certificate.pair_trouble(*pair)
    module.exit_json(
        changed=False,
        installed=os.path.exists(params["program"]) and mark != "begun",
        ours=bool(mark),
        certificate_trouble=trouble,
    )


if __name__ == "__main__":
    main()
