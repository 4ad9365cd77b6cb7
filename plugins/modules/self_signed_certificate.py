# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: self_signed_certificate
short_description: Create a self-signed certificate
version_added: 1.0.0
description:
  - Creates a certificate and its key with C(openssl) if there is no certificate, if the certificate does not match the
    key or the names, or if it expires within 30 days.
  - Only root can read the key. The module writes the key before the certificate.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports whether the module would create the certificate.
    support: full
  diff_mode:
    description: Shows why the module creates the certificate.
    support: full
options:
  path:
    description: The file of the certificate.
    type: path
    required: true
  key_path:
    description: The file of the key.
    type: path
    required: true
  names:
    description: The host names and IP addresses that the certificate is for.
    type: list
    elements: str
    required: true
  days:
    description: How many days the certificate is valid.
    type: int
    default: 3650
seealso:
  - module: gpunode.llm.gateway_info
"""

EXAMPLES = r"""
- name: Create a certificate
  gpunode.llm.self_signed_certificate:
    path: /etc/gpunode/gateway/certificate.pem
    key_path: /etc/gpunode/gateway/certificate.key
    names: [llm.example.net, 10.0.0.5]
"""

RETURN = r"""
why:
  description: Why the module created the certificate. Empty if it did not.
  type: str
  returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.tls import certificate as tls_certificate


def make(module):
    params = module.params
    staged = {name: os.path.join(module.tmpdir, f"{name}.pem") for name in ("path", "key_path")}
    command = tls_certificate.self_signed(staged["path"], staged["key_path"], params["names"], params["days"])
    rc, _out, err = module.run_command(command)
    if rc != 0:
        module.fail_json(msg=f"openssl could not create the certificate: {err.strip()}")
    for name, mode in (("key_path", 0o600), ("path", 0o644)):
        os.makedirs(os.path.dirname(params[name]), mode=0o755, exist_ok=True)
        os.chmod(staged[name], mode)
        module.atomic_move(staged[name], params[name])
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
        module.fail_json(msg="`names` is empty. A certificate needs at least one name.")
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
