# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_ready
short_description: Wait until vLLM answers, or report why it cannot
version_added: 1.0.0
description:
  - Waits until each endpoint answers a request of its task, such as a completion, not only its health check.
  - Watches the systemd units during the wait. If a unit ends, the module fails at once. It reports the cause from the
    journal and the remedy, from a table of known messages of vLLM, Docker and CUDA.
  - The play shows what the engine does during the wait.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.endpoints
  - gpunode.llm.waiting
attributes:
  check_mode:
    description: Checks once. An endpoint that does not answer is not a failure in check mode.
    support: full
  diff_mode:
    description: The module changes nothing, so there is no diff.
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
      description: The name of the endpoint.
      type: str
    url:
      description: The base URL for OpenAI clients, from the node's point of view.
      type: str
    model:
      description: The name under which the model is served.
      type: str
    ready:
      description: Whether the endpoint answers. Never false outside check mode.
      type: bool
    detail:
      description: The answer of the endpoint.
      type: str
    seconds:
      description:
        - How many seconds the steps of the start took, read from the log. Only set if this call waited for the start.
          C(load) is the time to load the weights, C(compile) the time from then to the first request, and C(token) the
          time to answer with one token.
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
  description: What the module waits for.
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
