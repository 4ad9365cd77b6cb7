# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_config_check
short_description: Check configurations with vLLM's own parser before a service is stopped
version_added: 1.0.0
description:
  - Runs the parser of C(vllm serve) over each configuration, in a container of the image that will serve it. It
    needs no GPU, no network and no weights, and takes about ten seconds, the time to import vLLM.
  - Checks only units that run. A unit that starts for the first time reports its own errors.
  - Changes nothing.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
  - gpunode.llm.reads_only
options:
  units:
    description:
      - The units. Each is a dictionary of C(name), C(config) (the path of the configuration), C(files) (the paths of
        all files that the unit reads at its start) and C(image), which must be on the node.
      - P(gpunode.llm.vllm_service#filter) returns this list as C(parsed).
      - Other keys are ignored.
    type: list
    elements: dict
    required: true
  changed_files:
    description: The files that changed. Only units that start from one of them are checked.
    type: list
    elements: path
    required: true
  docker:
    description: The path of the Docker client.
    type: path
    default: /usr/bin/docker
  timeout_s:
    description: The longest time that one container may take, in seconds.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Check the configuration with the new release
  gpunode.llm.vllm_config_check:
    units:
      - name: vllm-8b.service
        image: vllm/vllm-openai:v0.33.0
        config: /etc/vllm/8b.yaml
        files: [/etc/vllm/8b.yaml, /etc/vllm/8b.env]
    changed_files: [/etc/vllm/8b.yaml]
"""

RETURN = r"""
checked:
  description: The names of the units whose configuration was accepted.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

REFUSED = 2
#: Runs the parser of ``vllm serve`` alone, since building the engine needs a GPU. Exit code 2 is a refusal.
PARSE = """
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser(prog="vllm")
ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
parser.parse_args(["serve", "--config", "/etc/vllm/config.yaml"])
"""
#: Uses the Python of the image's vllm command, wherever it is installed.
SHELL = 'exec $(sed -n "1s/^#!//p" "$(command -v vllm)") -c "$0"'


def command(params, unit):
    return [
        *("timeout", str(params["timeout_s"]), params["docker"], "run", "--rm", "--pull=never", "--network=none"),
        *("--security-opt=no-new-privileges", "--cap-drop=ALL", "--log-driver=none", "--entrypoint=/bin/sh"),
        f"--volume={unit['config']}:/etc/vllm/config.yaml:ro",
        *(unit["image"], "-c", SHELL, PARSE),
    ]


def complaint(text):
    """The parser's own sentence, without the list of all options before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return (errors or lines or ["it said nothing"])[-1]


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "changed_files": {"type": "list", "elements": "path", "required": True},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
            "timeout_s": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    checked = []
    for unit in module.params["units"]:
        if not set(unit["files"]) & set(module.params["changed_files"]):
            continue
        if module.run_command(["systemctl", "--quiet", "is-active", unit["name"]])[0] != 0:
            continue
        rc, out, err = module.run_command(command(module.params, unit))
        error = complaint(err or out)
        if rc == REFUSED:
            module.fail_json(
                msg=f"{unit['image']} does not take {unit['config']}, so {unit['name']} was not stopped: {error}",
                checked=checked,
                done=True,
            )
        if rc != 0:
            # Another release may have its parser elsewhere. The start of the unit then shows whether it works.
            module.warn(f"{unit['image']} could not be asked about {unit['config']}: {error}")
            continue
        checked.append(unit["name"])
    module.exit_json(changed=False, checked=checked)


if __name__ == "__main__":
    main()
