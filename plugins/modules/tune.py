# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tune
short_description: Find faster options of an engine on this node's own GPUs
version_added: 1.0.0
description:
  - Starts an instance with one set of options after the other, measures each with the client of
    M(gpunode.llm.benchmark), and keeps the best. The files of the instance itself are never changed, so a reboot or a
    kill brings it back as it was.
  - The candidates run in O(trial), a unit that the role vllm has written below C(/run). At the end, however it comes,
    that unit is removed, and what served before is started.
  - The work runs in a transient systemd unit on the node, which a lost connection does not end. The next call with the
    same settings attaches to it. A tune that was cut off goes on after the candidates that it has measured.
  - Without O(trial), it decides what would be tried, and does not ask the node.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.benchmark
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Starts and measures nothing.
    support: full
  diff_mode:
    description: What serves is as before.
    support: none
options:
  attach:
    description:
      - Whether to do no more than go on with the same tune that runs, or take a result that nobody took. If there is
        none, RV(tune) is empty.
    type: bool
    default: false
  trial:
    description:
      - The candidates' service, as the filter P(gpunode.llm.vllm_service#filter) builds it. Its files are on the node.
    type: dict
  axes:
    description:
      - The choices of each axis, in the order in which they are tried, as RV(axes) of a call without O(trial).
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
    description:
      - The names of axes to try. By default all that need no request of their own; those that may change answers are
        among them if O(quality) compares the answers. Used on the controller.
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
    description:
      - What is best. V(goodput) counts requests within the goals of the run, V(latency) the tokens of a single user.
    type: str
    choices: [throughput, goodput, latency]
    default: throughput
  budget_minutes:
    description: No candidate is started that would end after so many minutes.
    type: float
    default: 60
  previous:
    description: The choices that won before, by their axes. They are measured first.
    type: dict
    default: {}
  extra_gpus:
    description: GPU types beyond the catalogue. Used on the controller.
    type: dict
    default: {}
  extra_engines:
    description: Releases beyond the catalogue. Used on the controller.
    type: dict
    default: {}
seealso:
  - module: gpunode.llm.benchmark
"""

EXAMPLES = r"""
- name: Decide what to try
  gpunode.llm.tune:
    name: 8b
    instance: "{{ plan.instances[0] }}"
    gpus: "{{ plan.gpus }}"
    profiles: [chat]
    try_values: {max-num-seqs: [128, 256, 512]}
  register: tries

- name: Try it
  gpunode.llm.tune:
    name: 8b
    trial: "{{ trials[0] }}"
    instance: "{{ plan.instances[0] }}"
    axes: "{{ tries.axes }}"
    runs: "{{ tries.runs }}"
  register: tuned
"""

RETURN = r"""
axes:
  description: What is tried, as O(axes).
  type: dict
  returned: success
runs:
  description: How it is measured, as O(runs).
  type: list
  elements: dict
  returned: success
text:
  description: What is tried, in words, one line for each axis.
  type: list
  elements: str
  returned: success
preset:
  description: The best as a preset by its name. Empty if nothing is better than what serves, or RV(advice) is not.
  type: dict
  returned: with O(trial)
advice:
  description: A sentence on how to set the best where no preset can have it. Else empty.
  type: str
  returned: with O(trial)
tune:
  description: What was tried, how it came out, and what is best. Empty in check mode.
  type: dict
  returned: when the work has ended
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
from ..module_utils.node import commands
from ..module_utils.units import job as units_job

OPTIONS = {
    **benchmark_run.JOB,
    **benchmark_run.LOAD,
    "trial": {"type": "dict"},
    "attach": {"type": "bool", "default": False},
    "axes": {"type": "dict"},
    # The action plugin reads these.
    "extra_gpus": {"type": "dict", "default": {}},
    "extra_engines": {"type": "dict", "default": {}},
    "instance": {"type": "dict"},
    "gpus": {"type": "list", "elements": "dict", "default": []},
    "try_axes": {"type": "list", "elements": "str", "default": []},
    "try_values": {"type": "dict", "default": {}},
    "power_limits_w": {"type": "list", "elements": "int", "default": []},
    "consent": {"type": "bool", "default": False},
    # The job has these.
    "objective": {"type": "str", "choices": ["throughput", "goodput", "latency"], "default": "throughput"},
    "budget_minutes": {"type": "float", "default": 60},
    "previous": {"type": "dict", "default": {}},
}


#: What lies there is a trial's own; the compile cache is not.
BELOW = "/run/"


def power_limits(run, gpus, axes):
    """The power limit that each GPU has, where a choice is about it."""
    if not any(choice.get("power_limit_w") for choices in axes.values() for choice in choices):
        return {}
    described = benchmark_gpus.described(run, gpus)["gpus"]
    return {gpu["uuid"]: gpu["power_limit_w"] for gpu in described if gpu["power_limit_w"]}


def question(order):
    """What a tune is about: candidates of another question are measured anew."""
    run = {key: value for key, value in order["runs"][0].items() if key not in ("seed", "repeats", "clients")}
    told = [order["objective"], run, order["engine"]["image_digest"], order["trial"]["config"]]
    told += [order["environment"], bool(order["quality"])]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def refuse_busy(target, params):
    """Raise BenchmarkError where a tune would cut off the requests of clients."""
    requests = benchmark_measure.busy(benchmark_measure.look(target))
    if requests and params["trial"]["in_place_of"] and not params["busy"]:
        raise benchmark_measure.BenchmarkError(
            f"{target.container} has {requests} requests of its clients, which a tune in its place would cut off: try"
            " again when it is idle, or with -e benchmark_busy=true."
        )


def put_back(run, params, record, limits):
    """What the end of the tune needs, however it comes."""
    trial = params["trial"]
    shown = commands.shown(run(commands.show(["ActiveState"], record.unit))[1]) or [{}]
    return {
        "docker": params["docker"],
        "client": benchmark_measure.client_of(trial["name"]),
        "unit": trial["unit"],
        "own_unit": record.unit,
        "was_active": shown[0].get("ActiveState") in ("active", "activating"),
        "files": [path for path in trial["files"].values() if path.startswith(BELOW)],
        "power_limits": limits,
    }


def trial_of(trial, record):
    """The unit of the candidates, as the job has it."""
    return {
        "unit": trial["unit"],
        "own_unit": record.unit,
        "in_place": bool(trial["in_place_of"]),
        "config_path": trial["files"]["config"],
        "environment_path": trial["files"]["environment"],
        "config": trial["config"],
    }


def job(params, run):
    """The order of the job on this node."""
    trial, record = params["trial"], benchmark_run.instance(params["name"])
    own = benchmark_run.target(record, {})
    target = {**vars(own), **{key: trial[key] for key in ("name", "container", "host", "port", "gpus")}}
    limits = power_limits(run, target["gpus"], params["axes"])
    digest = benchmark_measure.image_of(run, params["docker"], record.image)
    given = ("axes", "objective", "runs", "previous", "quality", "host", "collection", "results", "docker")
    order = {
        **{key: params[key] for key in given},
        **benchmark_run.about(record),
        **{"kind": "tune", "label": "", "budget_s": params["budget_minutes"] * 60, "power_limits": limits},
        "target": {**target, "env_file": trial["files"]["environment"]},
        "engine": {"name": "vllm", "version": "", "image": record.image, "image_digest": digest, "env": {}},
        "trial": trial_of(trial, record),
        "put_back": put_back(run, params, record, limits),
    }
    order["engine"]["env"] = order["environment"]
    return own, {**order, "question": question(order)}


def attach(module):
    """Attach to the tune, or find its result; end if there is none."""
    params = module.params
    asked = {key: params[key] for key in ("name", "axes", "objective", "runs", "quality", "host", "results")}
    asked["budget_s"] = params["budget_minutes"] * 60
    state = benchmark_run.under_way(module.run_command, "tune", asked)
    if not state or module.check_mode:
        module.exit_json(changed=False, done=True, progress="", tune={})
    if state == "ended":
        module.warn(benchmark_run.AGAIN.format(what=f"The tune of {params['name']}"))


def begin(module):
    """Start the tune, attach to it, or find its result. What a play has written for nothing is removed."""
    params, run = module.params, module.run_command
    own, order = job(params, run)
    if module.check_mode:
        refuse_busy(own, params)
        module.exit_json(changed=False, done=True, progress="", tune={})
    state = ""
    try:
        refuse_busy(own, params)
        state = benchmark_run.start(run, "tune", order)
    finally:
        # A tune that runs has these files itself.
        if state == "ended" or (not state and not benchmark_run.runs(run, "tune", params["name"])):
            benchmark_run.discard(run, order)
    if state == "ended":
        module.warn(benchmark_run.AGAIN.format(what=f"The tune of {params['name']}"))


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params, run = module.params, module.run_command
    try:
        if not params["resume"]:
            (attach if params["attach"] else begin)(module)
        done, progress, results = benchmark_run.wait(run, "tune", params["name"], params["wait_s"])
        answer = {"tune": benchmark_run.loaded(results)[0]} if done else {"resume": {"started": True}}
        module.exit_json(changed=False, done=done, progress=progress, **answer)
    except (benchmark_measure.BenchmarkError, units_job.JobError, OSError, ValueError) as trouble:
        module.fail_json(msg=str(trouble), done=True, progress="")


if __name__ == "__main__":
    main()
