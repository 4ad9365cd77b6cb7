# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_token
short_description: Store a Hugging Face token on a node
version_added: 1.0.0
description:
  - Asks the hub to confirm the token, and then writes it into a file that only its owner can read. The token appears in
    no command line, no result and no diff.
  - If the file already contains the token, the module does not ask the hub and changes nothing. Without a token, the
    file stays unchanged.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Asks the hub to confirm the token, but writes nothing.
    support: full
  diff_mode:
    description: Shows the account of the token, not the token.
    support: full
options:
  token:
    description: The token.
    type: str
  path:
    description: The file that holds the token. The module creates a missing folder with mode 0700.
    type: path
    default: /etc/huggingface/token
  endpoint:
    description: The hub that confirms the token.
    type: str
    default: https://huggingface.co
  ca_path:
    description: A file of certificate authorities to trust instead of those of the system.
    type: path
"""

EXAMPLES = r"""
- name: Store the token
  gpunode.llm.hf_token:
    token: "{{ vault_huggingface_token }}"
"""

RETURN = r"""
account:
  description: The account that owns the token. Empty if the module did not ask the hub.
  type: str
  returned: success
"""

import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.hub import api as hub_api, opener as hub_opener, token as hub_token

TIMEOUT_S = 20


def main():
    module = AnsibleModule(
        argument_spec={
            "token": {"type": "str", "no_log": True},
            "path": {"type": "path", "default": "/etc/huggingface/token"},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "ca_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    token, path = (params["token"] or "").strip(), params["path"]
    if hub_token.current(path, token):
        module.exit_json(changed=False, account="")
    hub = hub_api.Hub(params["endpoint"], hub_opener.opener(TIMEOUT_S, params["ca_path"]), time.sleep, token)
    try:
        account = hub.account()
    except hub_api.HubError as refusal:
        module.fail_json(msg=str(refusal))
    before = "another token, or one that others can read\n" if hub_token.read(path) else ""
    if not module.check_mode:
        try:
            hub_token.write(path, token)
        except OSError as error:
            module.fail_json(msg=f"The token could not be written to {path}: {error.strerror}.")
    diff = {"before_header": path, "after_header": path, "before": before, "after": f"the token of {account}\n"}
    module.exit_json(changed=True, account=account, diff=diff)


if __name__ == "__main__":
    main()
