# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_info
short_description: Collect the state of the gateway on a node
version_added: 1.0.0
description:
  - Reports whether nginx is installed, whether the role P(gpunode.llm.gateway#role) installed it, whether the
    certificate can be used, whether certbot must request a certificate, and whether the node shares an address.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  program:
    description: The program nginx.
    type: path
    default: /usr/sbin/nginx
  marker:
    description: The file in which the role records that it installs nginx.
    type: path
    default: /var/lib/gpunode/gateway/nginx
  modules:
    description: The files of nginx's modules that the gateway loads.
    type: list
    elements: path
    default: []
  certificate:
    description: The file of the certificate.
    type: path
    required: true
  certificate_key:
    description: The file of its key.
    type: path
    required: true
  names:
    description:
      - The host names and IP addresses of a self-signed certificate. If empty, the module accepts any certificate that
        matches its key.
    type: list
    elements: str
    default: []
  acme:
    description: The certificate that certbot requests from an ACME authority. If not set, certbot requests none.
    type: dict
    suboptions:
      names:
        description: The host names that the certificate is for.
        type: list
        elements: str
        required: true
      server:
        description: The URL of the authority's ACME directory.
        type: str
        required: true
      webroot:
        description: The folder in which certbot places the files for the challenges of the authority.
        type: path
        required: true
      hook:
        description: The program that certbot runs after it has received a certificate.
        type: path
        required: true
      email:
        description: The contact e-mail address for the authority.
        type: str
        required: true
  acme_note:
    description: The file in which the role records the authority and the contact address that certbot registered.
    type: path
    default: /var/lib/gpunode/gateway/acme-account
  certbot_dir:
    description: The folder in which certbot keeps its settings and certificates.
    type: path
    default: /etc/letsencrypt
seealso:
  - module: gpunode.llm.self_signed_certificate
"""

EXAMPLES = r"""
- name: Collect the state of the gateway
  gpunode.llm.gateway_info:
    certificate: /etc/gpunode/gateway/certificate.pem
    certificate_key: /etc/gpunode/gateway/certificate.key
  register: gateway
"""

RETURN = r"""
installed:
  description: Whether nginx is installed. False while an installation by the role is unfinished.
  type: bool
  returned: always
ours:
  description: Whether the role installed nginx.
  type: bool
  returned: always
modules_missing:
  description: Those of O(modules) that are not on the node.
  type: list
  elements: str
  returned: always
certificate_trouble:
  description: Why the certificate cannot be used or must be created again. Empty if there is no problem.
  type: str
  returned: always
certbot:
  description: Whether certbot is installed.
  type: bool
  returned: always
acme_differs:
  description: Why certbot must request a certificate. Empty if certbot has the right one or O(acme) is not set.
  type: list
  elements: str
  returned: always
  sample: ["it is for a.example.net, but should be for a.example.net, b.example.net"]
acme_account:
  description: Whether certbot must register the contact address with the authority.
  type: bool
  returned: always
acme_deploy:
  description: Whether the certificate of certbot differs from the certificate of the gateway.
  type: bool
  returned: always
acme_kept:
  description: Whether certbot has a certificate for the gateway.
  type: bool
  returned: always
keepalived:
  description: Whether keepalived is installed.
  type: bool
  returned: always
curl:
  description: Whether curl is installed.
  type: bool
  returned: always
shares_address:
  description: Whether the unit is there that takes an address that several gateways share.
  type: bool
  returned: always
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import names
from ..module_utils.node import files as node_files
from ..module_utils.tls import certbot as tls_certbot, certificate as tls_certificate

#: The options of O(acme).
ACME = {
    "names": {"type": "list", "elements": "str", "required": True},
    "server": {"type": "str", "required": True},
    "webroot": {"type": "path", "required": True},
    "hook": {"type": "path", "required": True},
    "email": {"type": "str", "required": True},
}


def acme(module):
    """Compare the certificate of certbot with the requested one."""
    params, request = module.params, module.params["acme"]
    renewal = node_files.text_of(os.path.join(params["certbot_dir"], "renewal", f"{tls_certbot.LINEAGE}.conf"))
    kept = os.path.join(params["certbot_dir"], "live", tls_certbot.LINEAGE, "fullchain.pem")
    state = {"acme_kept": bool(renewal), "acme_differs": [], "acme_account": False, "acme_deploy": False}
    if not request:
        return state
    wanted = tls_certbot.Request(**request)
    names = tls_certificate.dns_names(kept, module.run_command) if os.path.exists(kept) else set()
    return {
        **state,
        "acme_differs": tls_certbot.differs(wanted, renewal, names),
        "acme_account": node_files.text_of(params["acme_note"]) != wanted.note,
        "acme_deploy": os.path.exists(kept) and node_files.text_of(kept) != node_files.text_of(params["certificate"]),
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/sbin/nginx"},
            "marker": {"type": "path", "default": "/var/lib/gpunode/gateway/nginx"},
            "modules": {"type": "list", "elements": "path", "default": []},
            "certificate": {"type": "path", "required": True},
            "certificate_key": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "default": []},
            "acme": {"type": "dict", "options": ACME},
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
        modules_missing=[path for path in params["modules"] if not os.path.exists(path)],
        certbot=bool(module.get_bin_path("certbot")),
        keepalived=bool(module.get_bin_path("keepalived", opt_dirs=["/usr/sbin"])),
        curl=bool(module.get_bin_path("curl")),
        shares_address=os.path.exists(os.path.join(names.UNIT_DIR, names.GATEWAY_ADDRESS_UNIT)),
        certificate_trouble=trouble,
        **acme(module),
    )


if __name__ == "__main__":
    main()
