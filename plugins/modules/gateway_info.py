# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Collect the state of the gateway on a node
version_added: 1.0.0
description:
  - Says whether nginx is there, whether the role P(gpunode.llm.gateway#role) put it there, and whether a self-signed
    certificate is to be made.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
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
  acme:
    description: What an ACME authority is to be asked for, by certbot. Without it none is.
    type: dict
    suboptions:
      names:
        description: The names that the certificate is for.
        type: list
        elements: str
        required: true
      server:
        description: The authority's directory.
        type: str
        required: true
      webroot:
        description: The folder into which challenges are put.
        type: path
        required: true
      hook:
        description: What certbot runs when it has got one.
        type: path
        required: true
      email:
        description: Whom the authority may write to.
        type: str
        required: true
  acme_note:
    description: The file in which the role notes what certbot has told the authority.
    type: path
    default: /var/lib/gpunode/gateway/acme-account
  certbot_dir:
    description: The folder in which certbot keeps what it has.
    type: path
    default: /etc/letsencrypt
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
certbot:
  description: Whether certbot is there.
  type: bool
  returned: always
acme_differs:
  description: Why certbot is to be asked for a certificate. Empty where it keeps what is asked for, or nothing is.
  type: list
  elements: str
  returned: always
  sample: ["it is for a.example.net, and is to be for a.example.net, b.example.net"]
acme_account:
  description: Whether the authority is to be told whom it may write to.
  type: bool
  returned: always
acme_deploy:
  description: Whether certbot keeps another certificate than the gateway has.
  type: bool
  returned: always
acme_kept:
  description: Whether certbot keeps a certificate for the gateway.
  type: bool
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import files as node_files
from ..module_utils.tls import certbot as tls_certbot, certificate as tls_certificate


def acme(module):
    """What certbot keeps against what it is asked for."""
    params, asked = module.params, module.params["acme"]
    renewal = node_files.text_of(os.path.join(params["certbot_dir"], "renewal", f"{tls_certbot.LINEAGE}.conf"))
    kept = os.path.join(params["certbot_dir"], "live", tls_certbot.LINEAGE, "fullchain.pem")
    told = {"acme_kept": bool(renewal), "acme_differs": [], "acme_account": False, "acme_deploy": False}
    if not asked:
        return told
    wanted = tls_certbot.Asked(**asked)
    names = tls_certificate.dns_names(kept, module.run_command) if os.path.exists(kept) else set()
    return {
        **told,
        "acme_differs": tls_certbot.differs(wanted, renewal, names),
        "acme_account": node_files.text_of(params["acme_note"]) != wanted.note,
        "acme_deploy": os.path.exists(kept) and node_files.text_of(kept) != node_files.text_of(params["certificate"]),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/sbin/nginx"},
            "marker": {"type": "path", "default": "/var/lib/gpunode/gateway/nginx"},
            "certificate": {"type": "path", "required": True},
            "certificate_key": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
            "acme": {
                "type": "dict",
                "options": {
                    "names": {"type": "list", "elements": "str", "required": True},
                    "server": {"type": "str", "required": True},
                    "webroot": {"type": "path", "required": True},
                    "hook": {"type": "path", "required": True},
                    "email": {"type": "str", "required": True},
                },
            },
            "acme_note": {"type": "path", "default": "/var/lib/gpunode/gateway/acme-account"},
            "certbot_dir": {"type": "path", "default": "/etc/letsencrypt"},
        },
        supports_check_mode=True,
    )
    params = module.params
    pair, mark = (params["certificate"], params["certificate_key"]), node_files.text_of(params["marker"]).strip()
    if params["names"]:
        trouble = tls_certificate.self_signed_trouble(*pair, params["names"], module.run_command)
    else:
        trouble = tls_certificate.pair_trouble(*pair)
    module.exit_json(
        changed=False,
        installed=os.path.exists(params["program"]) and mark != "begun",
        ours=bool(mark),
        certbot=bool(module.get_bin_path("certbot")),
        certificate_trouble=trouble,
        **acme(module),
    )


if __name__ == "__main__":
    main()
