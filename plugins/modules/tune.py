# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tune
short_description: Find faster options of an engine on this node's own GPUs
version_added: 1.0.0
description:
  - Starts an instance with one set of options after the other, measures each with M(gpunode.llm.benchmark)'s client, and
    keeps the best. The files of the instance itself are never changed, so a reboot or a kill brings it back as it was.
  - The candidates run in O(trial), a unit that the role vllm has written below C(/run). At the end, however it comes, that
    unit is removed, and what served before is started.
  - The work runs in a transient systemd unit on the node, which a lost connection does not end. The next call attaches to
    it. A tune that was cut off goes on after the candidates that it has measured.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Starts and measures nothing.
    support: full
  diff_mode:
    description: What serves is as before.
    support: none
options:
  name:
    description: The name of the instance.
    type: str
    required: true
  trial:
    description: The candidates' service, as the filter P(gpunode.llm.vllm_service#filter) builds it. Its files are on the node.
    type: dict
    required: true
  axes:
    description:
      - The choices of each axis, in the order in which they are tried.
      - By default they are made for O(instance).
    type: dict
  instance:
    description: The instance, as P(gpunode.llm.serving_plan#module) returns it. Used on the controller.
    type: dict
  gpus:
    description: The node's GPUs, likewise. Used on the controller.
    type: list
    elements: dict
    default: []
  try_axes:
    description: The names of axes to try. By default all that need no request of their own. Used on the controller.
    type: list
    elements: str
    default: []
  try_values:
    description: Values to try, by options of C(vllm serve). Used on the controller.
    type: dict
    default: {}
  power_limits_w:
    description: Power limits of a GPU to try, in watts. Used on the controller.
    type: list
    elements: int
    default: []
  consent:
    description: Whether the tune may take the place of what serves. Used on the controller.
    type: bool
    default: false
  objective:
    description: What is best. V(goodput) counts requests within the goals of the run, V(latency) the tokens of a single user.
    type: str
    choices: [throughput, goodput, latency]
    default: throughput
  runs:
    description: One run, in the form of M(gpunode.llm.benchmark). By default it is made of O(profiles).
    type: list
    elements: dict
  profiles:
    description: The names of profiles of C(catalog/benchmarks.yml) and O(extra_profiles). Used on the controller.
    type: list
    elements: str
    default: []
  extra_profiles:
    description: Further profiles, in the form of that file. Used on the controller.
    type: dict
    default: {}
  concurrency:
    description: How many requests are under way at once, instead of the profile's own numbers. Used on the controller.
    type: list
    elements: raw
    default: []
  repeats:
    description: How often each point is measured. Their spread is the noise. Used on the controller.
    type: int
    default: 1
  clients:
    description: The number of processes of the client; V(0) takes as many as are needed. Used on the controller.
    type: int
    default: 0
  goals:
    description: C(ttft_ms) and C(itl_ms), which a good request keeps, in milliseconds. Used on the controller.
    type: dict
    default: {}
  requests:
    description:
      - The user's own requests, one JSON object with C(prompt) and C(output_tokens) on each line. Used on the controller.
    type: str
    default: ""
  budget_minutes:
    description: No candidate is started that would end after so many minutes.
    type: float
    default: 60
  previous:
    description: The choices that won before, by their axes. They are measured first.
    type: dict
    default: {}
  models:
    description: If given, an instance that is not among these is skipped. Used on the controller.
    type: list
    elements: raw
    default: []
  extra_models:
    description: Models beyond the catalogue. Used on the controller.
    type: dict
    default: {}
  busy:
    description: Whether to tune even if the instance has requests of its clients, which it then no longer answers.
    type: bool
    default: false
  quality:
    description: How to ask the fixed questions; empty if they are not asked.
    type: dict
    default: {}
  host:
    description: The name of this node, for the result.
    type: str
    default: ""
  collection:
    description: The release of this collection, for the result.
    type: str
    default: ""
  results:
    description: The folder for the result.
    type: path
    default: /var/lib/gpunode/benchmark
  docker:
    description: The path of the Docker client.
    type: path
    default: /usr/bin/docker
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 5
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
seealso:
  - module: gpunode.llm.benchmark
"""

EXAMPLES = r"""
- name: Tune an instance
  gpunode.llm.tune:
    name: 8b
    trial: "{{ trials[0] }}"
    instance: "{{ plan.instances[0] }}"
    gpus: "{{ plan.gpus }}"
    profiles: [chat]
    try_values: {max-num-seqs: [128, 256, 512]}
  register: tuned
"""

RETURN = r"""
preset:
  description: The best as a preset by its name. Empty if nothing was better than what serves.
  type: dict
  returned: success
tune:
  description: What was tried, how it came out, and what is best. Empty until the work has ended.
  type: dict
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

import hashlib
import json

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.benchmark import gpus as benchmark_gpus, measure as benchmark_measure, run as benchmark_run
from ..module_utils.instance import names as instance_names
from ..module_utils.node import commands
from ..module_utils.units import job as units_job


def power_limits(run, gpus, axes):
    """The power limit that each GPU has, where a choice is about it."""
    if not any(choice.get("power_limit_w") for choices in axes.values() for choice in choices):
        return {}
    described = benchmark_gpus.described(run, gpus)["gpus"]
    return {gpu["uuid"]: gpu["power_limit_w"] for gpu in described if gpu["power_limit_w"]}


def question(params, image, base):
    """What a tune is about: candidates of another question are measured anew."""
    told = [params["objective"], params["runs"][0]["profile"], params["runs"][0]["concurrency"], image, base]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def job(module, run):
    params, trial = module.params, module.params["trial"]
    record = benchmark_run.instance(params["name"])
    own = benchmark_run.target(record, {})
    if not params["busy"] and trial["in_place_of"]:
        requests = benchmark_measure.busy(benchmark_measure.look(own))
        if requests:
            raise benchmark_measure.BenchmarkError(
                f"{own.container} has {requests} requests of its clients, which a tune in its place would cut off: try again"
                " when it is idle, or with -e benchmark_busy=true."
            )
    target = {
        **vars(own),
        **{key: trial[key] for key in ("name", "container", "host", "port", "gpus")},
        "env_file": trial["files"]["environment"],
    }
    digest = benchmark_measure.image_of(run, params["docker"], record.image)
    limits = power_limits(run, target["gpus"], params["axes"])
    files = [path for path in trial["files"].values() if path.startswith("/run/")]
    shown = commands.shown(run(commands.show(["ActiveState"], record.unit))[1]) or [{}]
    given = ("axes", "objective", "runs", "previous", "quality", "host", "collection", "results", "docker")
    return {
        **{key: params[key] for key in given},
        **benchmark_run.about(record),
        **{"kind": "tune", "label": "", "budget_s": params["budget_minutes"] * 60, "power_limits": limits},
        **{"target": target, "question": question(params, digest, trial["config"])},
        "engine": {"name": "vllm", "version": "", "image": record.image, "image_digest": digest, "env": {}},
        "trial": {
            "unit": trial["unit"],
            "own_unit": record.unit,
            "in_place": bool(trial["in_place_of"]),
            "config_path": trial["files"]["config"],
            "environment_path": trial["files"]["environment"],
            "config": trial["config"],
        },
        "put_back": {
            "docker": params["docker"],
            "client": benchmark_measure.client_of(instance_names.trial_of(params["name"])),
            "unit": trial["unit"],
            "own_unit": record.unit,
            "was_active": shown[0].get("ActiveState") in ("active", "activating"),
            "files": files,
            "power_limits": limits,
        },
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "trial": {"type": "dict", "required": True},
            "axes": {"type": "dict"},
            "objective": {"type": "str", "choices": ["throughput", "goodput", "latency"], "default": "throughput"},
            "runs": {"type": "list", "elements": "dict"},
            # The action plugin reads these.
            "profiles": {"type": "list", "elements": "str", "default": []},
            "extra_profiles": {"type": "dict", "default": {}},
            "concurrency": {"type": "list", "elements": "raw", "default": []},
            "repeats": {"type": "int", "default": 1},
            "clients": {"type": "int", "default": 0},
            "goals": {"type": "dict", "default": {}},
            "requests": {"type": "str", "default": ""},
            "models": {"type": "list", "elements": "raw", "default": []},
            "extra_models": {"type": "dict", "default": {}},
            "instance": {"type": "dict"},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "try_axes": {"type": "list", "elements": "str", "default": []},
            "try_values": {"type": "dict", "default": {}},
            "power_limits_w": {"type": "list", "elements": "int", "default": []},
            "consent": {"type": "bool", "default": False},
            "budget_minutes": {"type": "float", "default": 60},
            "previous": {"type": "dict", "default": {}},
            "busy": {"type": "bool", "default": False},
            "quality": {"type": "dict", "default": {}},
            "host": {"type": "str", "default": ""},
            "collection": {"type": "str", "default": ""},
            "results": {"type": "path", "default": benchmark_run.RESULTS},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
            "wait_s": {"type": "int", "default": 5},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params, run = module.params, module.run_command
    try:
        if not params["resume"] and not module.check_mode:
            benchmark_run.start(run, "tune", job(module, run))
        if module.check_mode:
            job(module, run)
            module.exit_json(changed=False, done=True, progress="", tune={})
        done, progress, results = benchmark_run.wait(run, "tune", params["name"], params["wait_s"])
        answer = {"tune": benchmark_run.loaded(results)[0]} if done else {"resume": {"started": True}}
        module.exit_json(changed=False, done=done, progress=progress, **answer)
    except (benchmark_measure.BenchmarkError, units_job.JobError, OSError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")


if __name__ == "__main__":
    main()
