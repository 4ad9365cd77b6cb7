# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: hf_token
short_description: Store a Hugging Face token on a node
version_added: 1.0.0
description:
  - Writes the token into a file that its owner alone can read, once the hub has confirmed it. The token appears in no
    command line, no result and no diff.
  - If the file already holds the token, the hub is not asked and nothing changes. Without a token the file stays.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Asks the hub, but writes nothing.
    support: full
  diff_mode:
    description: Shows whose token it is, and not the token.
    support: full
options:
  token:
    description: The token.
    type: str
  path:
    description: The file. A missing folder is created with mode 0700.
    type: path
    default: /etc/huggingface/token
  endpoint:
    description: The hub that confirms the token.
    type: str
    default: https://huggingface.co
  ca_path:
    description: A bundle of certificate authorities to trust, in place of the system's.
    type: path
"""

EXAMPLES = r"""
- name: Store the token
  gpunode.llm.hf_token:
    token: "{{ vault_huggingface_token }}"
"""

RETURN = r"""
account:
  description: The account that owns the token. Empty if the hub was not asked.
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
