# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_health_info
short_description: Report the health of the NVIDIA GPUs of a node
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
description:
  - Reads from nvidia-smi the PCIe link, the NVLinks, ECC, remapped rows, throttling and the fabric of each GPU, and
    runs DCGM's shortest diagnosis if DCGM is installed.
  - Decides nothing. C(playbooks/health.yml) names what is wrong, each with its remedy.
options:
  diagnose:
    description: Whether to run C(dcgmi diag -r 1), where DCGM is installed. It takes some seconds.
    type: bool
    default: true
seealso:
  - module: gpunode.llm.gpu_info
"""

EXAMPLES = r"""
- name: Read the health of the GPUs
  gpunode.llm.gpu_health_info:
  register: health
"""

RETURN = r"""
state:
  description: As M(gpunode.llm.gpu_info) returns it. V(ok) if nvidia-smi lists GPUs.
  type: str
  returned: success
message:
  description: The problem and its remedy. Empty if there is none.
  type: str
  returned: success
driver_version:
  description: Version of the NVIDIA driver.
  type: str
  returned: success
gpus:
  description:
    - The GPUs, each with what nvidia-smi says of it. C(links) are the NVLinks that carry data and all of them,
      C(throttled) the reasons for lower clocks, C(uncorrectable) the memory errors since the driver was loaded that ECC
      could not correct.
  type: list
  elements: dict
  returned: success
diagnosis:
  description: What DCGM's diagnosis found, a text for each failed test. Null if it was not run.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.node import health as node_health


def main():
    module = AnsibleModule(argument_spec={"diagnose": {"type": "bool", "default": True}}, supports_check_mode=True)
    answer = node_health.answer(module.run_command, module.get_bin_path, module.params["diagnose"])
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
