# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark
short_description: Measure how fast an instance of this node is
version_added: 1.0.0
description:
  - Sends requests to an instance with C(vllm bench serve), which runs in the engine's own image on this node, and
    returns a record of what it measured and where. Nothing is installed.
  - The key is read from the instance's environment file, or from O(key), and is handed on in the environment alone.
  - The work runs in a transient systemd unit on the node, which a lost connection does not end. The next call with the
    same settings attaches to it, or takes its result. The records stay in O(results).
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.benchmark
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Measures nothing, and returns no record.
    support: full
  diff_mode:
    description: A benchmark changes nothing.
    support: none
options:
  models:
    description: If given, an instance that is not among these is skipped. Used on the controller.
    type: list
    elements: raw
    default: []
  extra_models:
    description: Models beyond the catalogue. Used on the controller.
    type: dict
    default: {}
  gateway:
    description:
      - To measure through the gateway, C(base_url) of the instance there, and C(insecure) if its certificate is its
        own. By default the instance itself is asked, on the loopback address.
    type: dict
    default: {}
  key:
    description: The key of a client of the gateway. By default that of the instance.
    type: str
    default: ""
  label:
    description: A word on this benchmark, for its record.
    type: str
    default: ""
seealso:
  - module: gpunode.llm.tune
"""

EXAMPLES = r"""
- name: Measure an instance
  gpunode.llm.benchmark:
    name: 8b
    profiles: [chat]
    repeats: 3
  register: measured
"""

RETURN = r"""
records:
  description: A record of each run, with where it was measured. Empty until the work has ended.
  type: list
  elements: dict
  returned: success
paths:
  description: Where this node keeps them.
  type: list
  elements: str
  returned: success
done:
  description: Whether the work has ended.
  type: bool
  returned: always
progress:
  description: The progress of the work.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.benchmark import measure as benchmark_measure, run as benchmark_run
from ..module_utils.units import job as units_job

OPTIONS = {
    **benchmark_run.JOB,
    **benchmark_run.LOAD,
    # The action plugin reads these.
    "models": {"type": "list", "elements": "raw", "default": []},
    "extra_models": {"type": "dict", "default": {}},
    # The job has these.
    "gateway": {"type": "dict", "default": {}},
    "key": {"type": "str", "default": "", "no_log": True},
    "label": {"type": "str", "default": ""},
}


def job(params):
    """The order of the job on this node."""
    record = benchmark_run.instance(params["name"])
    target = benchmark_run.target(record, params["gateway"])
    given = ("runs", "busy", "quality", "label", "host", "collection", "results", "docker")
    return {
        **{key: params[key] for key in given},
        **benchmark_run.about(record),
        "kind": "benchmark",
        "target": vars(target),
    }


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params, run = module.params, module.run_command
    try:
        if not params["resume"]:
            wanted = job(params)
            if module.check_mode:
                module.exit_json(changed=False, done=True, progress="", records=[], paths=[])
            if benchmark_run.start(run, "benchmark", wanted, params["key"]) == "ended":
                module.warn(benchmark_run.AGAIN.format(what=f"The benchmark of {params['name']}"))
        done, progress, results = benchmark_run.wait(run, "benchmark", params["name"], params["wait_s"])
        answer = {"records": benchmark_run.loaded(results), "paths": results} if done else {"resume": {"started": True}}
        module.exit_json(changed=False, done=done, progress=progress, **answer)
    except (benchmark_measure.BenchmarkError, units_job.JobError, OSError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")


if __name__ == "__main__":
    main()
