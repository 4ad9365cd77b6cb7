# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed_certificate
short_description: Have a self-signed certificate
version_added: 1.0.0
description:
  - Makes a certificate and its key with C(openssl), where there is none, where it belongs to another key or to other
    names, or where it ends within thirty days.
  - The key is for root alone, and lands before the certificate that belongs to it.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Says whether it would be made.
    support: full
  diff_mode:
    description: Shows the reason.
    support: full
options:
  path:
    description: The certificate.
    type: path
    required: true
  key_path:
    description: Its key.
    type: path
    required: true
  names:
    description: The names and addresses that it is for.
    type: list
    elements: str
    required: true
  days:
    description: How many days it lasts.
    type: int
    default: 3650
seealso:
  - module: gpunode.llm.gateway_info
"""

EXAMPLES = r"""
- name: Have a certificate
  gpunode.llm.self_signed_certificate:
    path: /etc/gpunode/gateway/certificate.pem
    key_path: /etc/gpunode/gateway/certificate.key
    names: [llm.example.net, 10.0.0.5]
"""

RETURN = r"""
why:
  description: Why it was made. Empty when it was not.
  type: str
  returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.tls import certificate as tls_certificate


def make(module):
    params = module.params
    made = {name: os.path.join(module.tmpdir, f"{name}.pem") for name in ("path", "key_path")}
    words = tls_certificate.self_signed(made["path"], made["key_path"], params["names"], params["days"])
    rc, _out, err = module.run_command(words)
    if rc != 0:
        module.fail_json(msg=f"openssl makes no certificate: {err.strip()}")
    for name, mode in (("key_path", 0o600), ("path", 0o644)):
        os.makedirs(os.path.dirname(params[name]), mode=0o755, exist_ok=True)
        os.chmod(made[name], mode)
        module.atomic_move(made[name], params[name])
        os.chmod(params[name], mode)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "key_path": {"type": "path", "required": True, "no_log": False},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 3650},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["names"]:
        module.fail_json(msg="A certificate is for at least one name: `names` is empty.")
    module.get_bin_path("openssl", required=not module.check_mode)
    trouble = tls_certificate.self_signed_trouble(
        params["path"], params["key_path"], params["names"], module.run_command
    )
    if trouble and not module.check_mode:
        make(module)
    after = f"{params['path']} made: {trouble}\n" if trouble else ""
    module.exit_json(changed=bool(trouble), why=trouble, diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
