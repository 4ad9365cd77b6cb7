# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_ready
short_description: Wait until vLLM answers, or report why it cannot
version_added: 1.0.0
description:
  - Waits until each endpoint answers a completion, and not only its health check.
  - Watches the systemd units meanwhile. When one ends, the wait ends at once with the cause from its journal and the
    remedy, found in a table of known messages of vLLM, Docker and CUDA.
  - While it waits, the play shows what the engine is busy with.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.endpoints
  - gpunode.llm.waiting
attributes:
  check_mode:
    description: Checks once. An endpoint that does not answer is then not a failure.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Wait for the endpoint
  gpunode.llm.endpoint_ready:
    endpoints:
      - name: 8b
        unit: vllm-8b.service
        port: 8000
        model: meta-llama/Llama-3.1-8B-Instruct
        env_file: /etc/vllm/8b.env
        timeout_s: 900
"""

RETURN = r"""
endpoints:
  description: The state of each endpoint.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    url:
      description: The base URL for OpenAI's clients, as seen from the node.
      type: str
    model:
      description: The name under which the model is served.
      type: str
    ready:
      description: Whether it answers. Never false outside check mode.
      type: bool
    detail:
      description: Its answer.
      type: str
    seconds:
      description:
        - How long parts of its start took, where this call waited for it, from what its log says. C(load) is the
          weights, C(compile) all that follows up to the first request, C(token) an answer of one token.
      type: dict
log:
  description: The last lines of the journal that help to find the cause.
  type: list
  elements: str
  returned: failure
done:
  description: Whether the wait has ended.
  type: bool
  returned: always
progress:
  description: What is being waited for.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import wait as instance_wait


def main():
    module = AnsibleModule(argument_spec=instance_wait.WAITING, supports_check_mode=True)
    instance_wait.Wait(module, {"changed": False}).end()


if __name__ == "__main__":
    main()
