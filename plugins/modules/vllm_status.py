# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_status
short_description: Report the state of a node's vLLM instances
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.reads_only
description:
  - Looks at every instance that the role P(gpunode.llm.vllm#role) put on the node, in one step. What systemd shows of
    its unit, what it serves, whether it answers a completion, how many requests it has and works off per second, and
    how busy its GPUs are. Requests per second are seen by two looks a second apart, at all instances at once.
  - An instance that does not serve is reported with the cause, from its journal, and with the remedy.
  - Never fails because of an instance; the caller decides what matters.
options:
  names:
    description: The instances to look at, by name. All of them where it is empty.
    type: list
    elements: str
    default: []
  wait_s:
    description: How long an instance may take to answer, in seconds. They are asked together.
    type: int
    default: 10
  watch_s:
    description: >-
      Look again each so many seconds, and show what is seen, until somebody interrupts it. Nothing is returned then.
      Looks once where it is not set.
    type: float
  models:
    description: >-
      What the node is to serve, as M(gpunode.llm.serving_plan) takes it. RV(instances[].listed) says of each instance
      whether it is among that.
    type: list
    elements: raw
    default: []
  extra_models:
    description: Models beyond the catalogue that O(models) may name.
    type: dict
    default: {}
  unit_dir:
    description: The folder that holds the units.
    type: path
    default: /etc/systemd/system
  docker:
    description: Docker's client.
    type: path
    default: /usr/bin/docker
notes:
  - Needs root for the environment file that holds an instance's API key. The key never leaves the node.
seealso:
  - module: gpunode.llm.endpoint_ready
  - module: gpunode.llm.vllm_instances_info
"""

EXAMPLES = r"""
- name: See how everything is
  gpunode.llm.vllm_status:
  register: status

- name: Fail where something does not serve
  ansible.builtin.assert:
    that: status.instances | rejectattr('healthy') | length == 0
"""

RETURN = r"""
instances:
  description: The instances, by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The instance's name.
      type: str
    unit:
      description: Its unit.
      type: str
    state:
      description:
        - V(serving), it answers a completion. V(busy), its answer is late, and it works meanwhile.
        - V(starting), V(restarting) after it ended by itself, V(stopping).
        - V(hung), its unit runs and nothing comes from it. V(refused), what answers there is not this instance.
        - V(failed), it ended with an error. V(stopped), it does not run.
      type: str
    healthy:
      description: Whether it serves.
      type: bool
    listed:
      description: Whether it is among O(models); null where there are none, or they cannot be read.
      type: bool
    detail:
      description: The reason for the state, with the cause if it ended.
      type: str
    remedy:
      description: What to do about it, mostly empty.
      type: str
    unit_state:
      description: What systemd says, such as V(active/running).
      type: str
    enabled:
      description: Whether it starts with the node.
      type: bool
    since_s:
      description: For how many seconds it has served, or has been starting; null where it does not run.
      type: int
    restarts:
      description: How often systemd has started it again.
      type: int
    restart_due:
      description: A file that has changed since the unit was started; empty if none has.
      type: str
    model:
      description: The repository of its model.
      type: str
    revision:
      description: The commit that it serves, or that it would serve.
      type: str
    served:
      description: The name under which it serves.
      type: str
    image:
      description: The image, as its unit names it.
      type: str
    image_id:
      description: The ID of the image that runs, empty where none does.
      type: str
    url:
      description: Its base URL for OpenAI's clients, as seen from the node.
      type: str
    requests_running:
      description: Requests that are being worked on; null where it does not say.
      type: int
    requests_waiting:
      description: Requests that wait for room; null where it does not say.
      type: int
    requests_per_s:
      description: >-
        Requests that ended per second, between two looks a second apart; null where that could not be seen, as with an
        engine that has been started between them.
      type: float
    prompt_tokens_per_s:
      description: Tokens of prompts that were read per second, likewise.
      type: float
    generation_tokens_per_s:
      description: Tokens that were made per second, likewise.
      type: float
    kv_cache_usage:
      description: How full the KV cache of its fullest engine is, from 0 to 1; null where it does not say.
      type: float
    gpus:
      description: The present indices of its GPUs.
      type: list
      elements: int
    gpu_uuids:
      description: Their UUIDs, in the same order.
      type: list
      elements: str
    gpus_lost:
      description: GPUs that its unit names and that the node does not have any more.
      type: list
      elements: str
    gpu_memory_used_mib:
      description: The used memory of its GPUs, by any process; null without GPUs.
      type: int
    gpu_memory_mib:
      description: The total memory of its GPUs.
      type: int
    gpu_utilization_percent:
      description: How busy they are, on average; null where the driver does not tell.
      type: float
    gpu_power_w:
      description: What all of them draw, in watts; null where the driver does not tell.
      type: float
    gpu_power_limit_w:
      description: What all of them may draw.
      type: float
    gpu_temperature_c:
      description: The hottest of them, in degrees Celsius; null where the driver does not tell.
      type: float
docker_runs:
  description: Whether Docker's service runs.
  type: bool
  returned: always
front:
  description:
    - The state in systemd of the gateway that the role P(gpunode.llm.gateway#role) put before the engines, such as
      V(active/running). Empty where there is none.
  type: str
  returned: always
front_since_s:
  description: For how many seconds it has run; null where it does not.
  type: int
  returned: always
front_listens:
  description: What it listens on, such as V(0.0.0.0 443).
  type: list
  elements: str
  returned: always
leftovers:
  description: What of this collection's belongs to no service on the node. Empty with O(names).
  type: list
  elements: dict
  returned: always
  contains:
    kind:
      description:
        - V(image) and V(model), which the collection fetched and no service names; V(file), of an instance that has no
          unit; V(second), an instance that ran beside another one; V(job), work that goes on; V(failed_job).
      type: str
    name:
      description: Its name, unit or path.
      type: str
gpu_message:
  description: What is wrong with the GPUs, empty where nothing is.
  type: str
  returned: always
"""

import http.client
import os
import time
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.instance import (
    gpu_use,
    known,
    leftovers as instance_leftovers,
    names,
    status as instance_status,
)
from ..module_utils.instance.names import GATEWAY_UNIT
from ..module_utils.node import brought as node_brought, commands
from ..module_utils.programs import gpu as programs_gpu, vllm_wait
from ..module_utils.units import unit as units_unit

LOG_LINES = 2000
DOCKER = "docker.service"
#: For programs that may never answer: a daemon that hangs, a GPU that is lost.
PATIENCE_S = "20"
#: Between the two looks at what an instance works off.
APART_S = 1.0


class Instance:
    """One unit of ours, and what its endpoint answered."""

    def __init__(self, record):
        self.record, self.name, self.unit, self.endpoint = record, record.name, record.unit, record.endpoint
        self.answer, self.load, self.works, self.rates = None, None, None, None

    def ask(self, wait_s):
        """Whether it answers a completion; and where it does not in time, whether it works, if that is seen."""
        host, port = self.endpoint["host"], self.endpoint["port"]
        plain = vllm_wait.asker(host, port)

        def hurried(method, path, body, headers, timeout):
            return plain(method, path, body, headers, min(timeout, wait_s))

        try:
            key = vllm_wait.read_key(self.endpoint["env_file"])
        except OSError as error:
            self.answer = vllm_wait.Answer(False, f"its environment file cannot be read: {error}", True)
            return
        before = self.look_twice(hurried, key)
        self.answer = vllm_wait.probe(hurried, self.endpoint["model"], key)
        after = self.metrics(hurried, key)
        self.load = instance_status.parse_metrics(after or before or "")
        self.works = None if before is None or after is None else vllm_wait.moved(before, after)

    def look_twice(self, ask, key):
        """See what it works off in a second, before it has work of ours; the newest text that came."""
        first, then = self.metrics(ask, key), time.monotonic()
        if not first:
            return first
        time.sleep(max(0, then + APART_S - time.monotonic()))
        second, now = self.metrics(ask, key), time.monotonic()
        self.rates = instance_status.rates(
            instance_status.parse_metrics(first), instance_status.parse_metrics(second or ""), now - then
        )
        return first if second is None else second

    @staticmethod
    def metrics(ask, key):
        """The text, empty where there is none, and None where it does not come in time."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            status, text = ask("GET", "/metrics", None, headers, vllm_wait.HEALTH_S)
        except vllm_wait.LATE:
            return None
        except (OSError, http.client.HTTPException):
            return ""
        return text if status == 200 else ""

    def restart_due(self, checksum):
        started_from, files = names.started_from(self.unit), self.record.files
        if not os.path.isdir(started_from):
            return ""
        return units_unit.stale_file(started_from, [files.config, files.environment, files.unit], checksum)

    def revision(self):
        """The model and settings that it serves, or would serve."""
        return (known.as_started(self.record) or self.record).revision

    def url(self):
        return vllm_wait.base_url(self.endpoint["host"], self.endpoint["port"])


class Node:
    def __init__(self, module):
        self.module = module
        self.uses = {}

    def run(self, command):
        return self.module.run_command(commands.within(PATIENCE_S, *command))

    def said(self, *command):
        """Run a command with our time limit; empty if it is not installed."""
        return self.run(command)[1]

    def gpus(self):
        tool = self.module.get_bin_path("nvidia-smi")

        def run(command):
            rc, out, err = self.run(command)
            self.uses = gpu_use.parse(out)
            return rc, out, err

        return programs_gpu.look(programs_gpu.asked(run, tool), programs_gpu.scan_pci())

    def units(self, names):
        units = (DOCKER, GATEWAY_UNIT, *names, *instance_leftovers.JOBS)
        shown = self.said(*commands.show(instance_status.PROPERTIES, *units))
        return instance_status.parse_units(shown, time.monotonic())

    def images(self, names):
        """The image that each container runs from."""
        docker = self.module.params["docker"]
        if not names or not os.path.exists(docker):
            return {}
        told = commands.inspected(self.run, docker, "container", "{{.Name}} {{.Image}}", *names)
        return dict(line.lstrip("/").split(" ", 1) for line in told.splitlines() if line.startswith("/"))

    def runs(self, unit):
        fields = "MESSAGE,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"
        line = ["journalctl", "--quiet", "--all", "--output=json", f"--output-fields={fields}", f"--lines={LOG_LINES}"]
        return instance_status.parse_journal(self.said(*line, f"--unit={unit}"))

    def row(self, one, units, images, gpus):
        unit = units.get(one.unit, instance_status.Unit())
        well = unit.active == "active" and one.answer and one.answer.ready
        runs = [] if well else self.runs(one.unit)
        docker_runs = units.get(DOCKER, instance_status.Unit()).active == "active"
        verdict = instance_status.judge(unit, one.answer, one.works, runs, docker_runs)
        mine, lost = instance_status.own_gpus(one.record.gpus, gpus)
        used, total = instance_status.gpu_memory(mine)
        use = gpu_use.together([self.uses.get(gpu.index, gpu_use.Use()) for gpu in mine])
        return {
            "name": one.name,
            "unit": one.unit,
            "state": verdict.state,
            "healthy": verdict.healthy,
            "detail": verdict.detail,
            "remedy": verdict.remedy,
            "unit_state": f"{unit.active}/{unit.sub}",
            "enabled": unit.enabled,
            "since_s": unit.since_s,
            "restarts": unit.restarts,
            "restart_due": one.restart_due(self.module.sha256) if unit.active == "active" else "",
            "model": one.record.model,
            "revision": one.revision(),
            "served": one.record.served,
            "image": one.record.image,
            "image_id": images.get(names.container_of(one.name), ""),
            "url": one.url(),
            "requests_running": one.load.running if one.load else None,
            "requests_waiting": one.load.waiting if one.load else None,
            "requests_per_s": one.rates.requests if one.rates else None,
            "prompt_tokens_per_s": one.rates.prompt_tokens if one.rates else None,
            "generation_tokens_per_s": one.rates.generation_tokens if one.rates else None,
            "kv_cache_usage": one.load.kv_cache_usage if one.load else None,
            "gpus": instance_status.gpu_indices(one.record.gpus, gpus),
            "gpu_uuids": [gpu.uuid for gpu in mine],
            "gpus_lost": lost,
            "gpu_memory_used_mib": used,
            "gpu_memory_mib": total,
            "gpu_utilization_percent": use.utilization_percent,
            "gpu_power_w": use.power_w,
            "gpu_power_limit_w": use.power_limit_w,
            "gpu_temperature_c": use.temperature_c,
        }


def instances(module):
    found = map(Instance, known.instances((module.params["unit_dir"],)))
    wanted = module.params["names"]
    return [one for one in found if not wanted or one.name in wanted]


def listens(module):
    """Addresses and ports that the gateway listens on."""
    found = known.gateway_listens(unit=os.path.join(module.params["unit_dir"], GATEWAY_UNIT))
    return [f"{host} {port}" for host, port in found]


def leftovers(found, units):
    records = [one.record for one in found]
    try:
        noted = node_brought.read(node_brought.PATH)
    except (OSError, ValueError):  # whoever changes it says what is wrong with it
        noted = {}
    folders = [os.path.dirname(one.files.config) for one in records if one.files.config]
    return [
        *instance_leftovers.jobs(units.values()),
        *instance_leftovers.seconds(),
        *instance_leftovers.brought(noted, records),
        *instance_leftovers.paths([one.name for one in found], folders),
    ]


def main():
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "default": []},
            "wait_s": {"type": "int", "default": 10},
            # These are for the action plugin.
            "watch_s": {"type": "float"},
            "models": {"type": "list", "elements": "raw", "default": []},
            "extra_models": {"type": "dict", "default": {}},
            "unit_dir": {"type": "path", "default": names.UNIT_DIR},
            "docker": {"type": "path", "default": "/usr/bin/docker"},
        },
        supports_check_mode=True,
    )
    node, found = Node(module), instances(module)
    units = node.units([one.unit for one in found])
    active = [one for one in found if units.get(one.unit, instance_status.Unit()).active == "active"]
    with ThreadPoolExecutor(max_workers=16) as pool:
        asked = [pool.submit(one.ask, module.params["wait_s"]) for one in active]
        # Meanwhile, since a look takes a second in any case.
        images = node.images([names.container_of(one.name) for one in active])
        gpus = node.gpus()
        for one in asked:
            one.result()
    rows = [node.row(one, units, images, gpus) for one in found]
    gateway = units.get(GATEWAY_UNIT, instance_status.Unit())
    told = [gpus.message if any(row["gpus"] or row["gpus_lost"] for row in rows) else ""]
    told += [instance_status.lost_text(row["unit"], row["gpus_lost"]) for row in rows]
    module.exit_json(
        changed=False,
        instances=rows,
        docker_runs=units.get(DOCKER, instance_status.Unit()).active == "active",
        front=f"{gateway.active}/{gateway.sub}" if gateway.loaded else "",
        front_since_s=gateway.since_s,
        front_listens=listens(module) if gateway.loaded else [],
        leftovers=[] if module.params["names"] else leftovers(found, units),
        gpu_message=" ".join(text for text in told if text),
    )


if __name__ == "__main__":
    main()
