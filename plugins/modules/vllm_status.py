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
  - Reports all instances that the role P(gpunode.llm.vllm#role) installed on the node, in one call. For each, it
    reports the state of the systemd unit, the model, whether it answers a request of its task, the number of requests,
    the requests per second, and the load of its GPUs. It measures the rates over one second, for all instances at once.
  - If an instance does not serve, it reports the cause from the journal and the remedy.
  - It does not fail because of the state of an instance. The caller decides what matters.
options:
  names:
    description: The names of the instances to report. Empty means all instances.
    type: list
    elements: str
    default: []
  wait_s:
    description: How long an instance may take to answer, in seconds. The module asks all instances at the same time.
    type: int
    default: 10
  watch_s:
    description: >-
      Repeat the report after this number of seconds and show it, until the user interrupts it. The module then returns
      nothing. Without it, the module reports once.
    type: float
  models:
    description: >-
      The models that the node must serve, as M(gpunode.llm.serving_plan) takes them. RV(instances[].listed) reports
      whether an instance is among them.
    type: list
    elements: raw
    default: []
  extra_models:
    description: Further models, beside the catalogue, that O(models) may name.
    type: dict
    default: {}
  unit_dir:
    description: The folder of the systemd units.
    type: path
    default: /etc/systemd/system
  docker:
    description: The path of the docker command.
    type: path
    default: /usr/bin/docker
notes:
  - Needs root for the environment file that holds an instance's API key. The key never leaves the node.
seealso:
  - module: gpunode.llm.endpoint_ready
  - module: gpunode.llm.vllm_instances_info
"""

EXAMPLES = r"""
- name: Read the state of all instances
  gpunode.llm.vllm_status:
  register: status

- name: Fail if an instance does not serve
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
      description: The systemd unit of the instance.
      type: str
    state:
      description:
        - V(serving) if it answers a request of its task. V(busy) if its answer is late but it works on requests.
        - V(starting), V(restarting) or V(stopping). V(restarting) means that it ended by itself before.
        - V(hung) if its unit runs but does not answer. V(refused) if something else answers at its address.
        - V(failed) if it ended with an error. V(stopped) if it does not run.
      type: str
    healthy:
      description: Whether the instance serves.
      type: bool
    listed:
      description: Whether the instance is among O(models). Null if O(models) is empty or cannot be read.
      type: bool
    detail:
      description: The reason for the state, with the cause if the instance ended.
      type: str
    remedy:
      description: The remedy. Usually empty.
      type: str
    unit_state:
      description: The state of the unit in systemd, such as V(active/running).
      type: str
    enabled:
      description: Whether the unit starts at boot.
      type: bool
    since_s:
      description: Seconds since the unit started to serve or to start. Null if it does not run.
      type: int
    restarts:
      description: How often systemd has restarted the unit.
      type: int
    restart_due:
      description: A file that has changed since the unit started. Empty if none has changed.
      type: str
    model:
      description: The repository of the model.
      type: str
    revision:
      description: The commit that the instance serves, or would serve after a start.
      type: str
    served:
      description: The model name that clients use.
      type: str
    image:
      description: The name of the image in the unit.
      type: str
    image_id:
      description: The ID of the running image. Empty if the container does not run.
      type: str
    url:
      description: The base URL for OpenAI clients, from the node's point of view.
      type: str
    requests_running:
      description: Number of running requests. Null if it is unknown.
      type: int
    requests_waiting:
      description: Number of waiting requests. Null if it is unknown.
      type: int
    requests_per_s:
      description: >-
        Completed requests per second, measured over one second. Null if it could not be measured, for example because
        the engine started in that second.
      type: float
    prompt_tokens_per_s:
      description: Prompt tokens per second, measured in the same way.
      type: float
    generation_tokens_per_s:
      description: Generated tokens per second, measured in the same way.
      type: float
    kv_cache_usage:
      description: Use of the fullest KV cache of the instance, from 0 to 1. Null if it is unknown.
      type: float
    rank:
      description: The rank in an engine over several nodes, of which V(0) has the API. Null for an engine on one node.
      type: int
    nodes:
      description: The nodes of such an engine, the head first.
      type: list
      elements: str
    gpus:
      description: The present indices of the GPUs.
      type: list
      elements: int
    gpu_uuids:
      description: The UUIDs of the GPUs, in the same order.
      type: list
      elements: str
    gpus_lost:
      description: GPUs that the unit names but that the node no longer has.
      type: list
      elements: str
    gpu_memory_used_mib:
      description: Used memory of the GPUs in MiB, by all processes. Null without GPUs.
      type: int
    gpu_memory_mib:
      description: Total memory of the GPUs in MiB.
      type: int
    gpu_utilization_percent:
      description: Average utilization of the GPUs in percent. Null if the driver does not report it.
      type: float
    gpu_power_w:
      description: Total power draw of the GPUs in watts. Null if the driver does not report it.
      type: float
    gpu_power_limit_w:
      description: Total power limit of the GPUs in watts.
      type: float
    gpu_temperature_c:
      description: Temperature of the hottest GPU in degrees Celsius. Null if the driver does not report it.
      type: float
docker_runs:
  description: Whether the service of Docker runs.
  type: bool
  returned: always
front:
  description:
    - The state in systemd of the gateway of the role P(gpunode.llm.gateway#role), such as V(active/running). Empty if
      there is no gateway.
  type: str
  returned: always
front_since_s:
  description: How many seconds the gateway has run. Null if it does not run.
  type: int
  returned: always
router:
  description: The router of the role P(gpunode.llm.router#role). Empty if there is none.
  type: dict
  returned: always
  contains:
    processes:
      description: Each of its units, with its C(state) in systemd, and whether it C(answers).
      type: list
      elements: dict
    workers:
      description: How many engines it should pass requests to.
      type: int
    workers_ready:
      description: To how many of them it does.
      type: int
    not_ready:
      description: The others, with their addresses.
      type: list
      elements: str
front_listens:
  description: The addresses and ports that the gateway listens on, such as V(0.0.0.0 443).
  type: list
  elements: str
  returned: always
leftovers:
  description: Things of this collection that no service on the node uses. Empty with O(names).
  type: list
  elements: dict
  returned: always
  contains:
    kind:
      description:
        - V(image) or V(model) if the collection downloaded it and no service names it. V(file) if it belongs to an
          instance without a unit. V(second) for a second instance. V(job) for a running job, V(failed_job) for one
          that failed.
      type: str
    name:
      description: The name, unit or path of the leftover.
      type: str
gpu_message:
  description: The problem with the GPUs. Empty if there is none.
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
    router as instance_router,
    status as instance_status,
)
from ..module_utils.instance.names import GATEWAY_UNIT, ROUTER_UNITS
from ..module_utils.node import brought as node_brought, commands
from ..module_utils.programs import gpu as programs_gpu, vllm_wait
from ..module_utils.units import unit as units_unit

LOG_LINES = 2000
DOCKER = "docker.service"
#: The time limit for programs that may never answer, for example because a daemon hangs or a GPU is lost.
COMMAND_TIMEOUT_S = "20"
#: The seconds between the two readings of the metrics from which the rates are calculated.
SAMPLE_S = 1.0


class Instance:
    """An instance of the role vllm, and the answer of its endpoint."""

    def __init__(self, record):
        self.record, self.name, self.unit, self.endpoint = record, record.name, record.unit, record.endpoint
        self.answer, self.load, self.works, self.rates = None, None, None, None

    def ask(self, wait_s):
        """Send a request of its task. If the answer is late, read from the metrics whether the engine works."""
        if self.record.headless:
            # Its unit runs only while the head answers, which is asked on its own node.
            self.answer = vllm_wait.Answer(True, f"it is a part of the engine on {self.endpoint['head']}")
            return
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
        self.answer = vllm_wait.probe(hurried, self.endpoint["model"], key, self.record.task)
        after = self.metrics(hurried, key)
        self.load = instance_status.parse_metrics(after or before or "")
        self.works = None if before is None or after is None else vllm_wait.moved(before, after)

    def look_twice(self, ask, key):
        """Read the metrics twice to get the rates, before our own request. Returns the newest metrics text."""
        first, then = self.metrics(ask, key), time.monotonic()
        if not first:
            return first
        time.sleep(max(0, then + SAMPLE_S - time.monotonic()))
        second, now = self.metrics(ask, key), time.monotonic()
        self.rates = instance_status.rates(
            instance_status.parse_metrics(first), instance_status.parse_metrics(second or ""), now - then
        )
        return first if second is None else second

    @staticmethod
    def metrics(ask, key):
        """The metrics text. Empty if there is none, None if it does not come in time."""
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
        """The commit that the instance serves, or would serve after a start."""
        return (known.as_started(self.record) or self.record).revision

    def url(self):
        return "" if self.record.headless else vllm_wait.base_url(self.endpoint["host"], self.endpoint["port"])


class Node:
    def __init__(self, module):
        self.module = module
        self.uses = {}

    def run(self, command):
        return self.module.run_command(commands.within(COMMAND_TIMEOUT_S, *command))

    def output(self, *command):
        """The output of a command with a time limit. Empty if it is not installed."""
        return self.run(command)[1]

    def gpus(self):
        tool = self.module.get_bin_path("nvidia-smi")

        def run(command):
            rc, out, err = self.run(command)
            self.uses = gpu_use.parse(out)
            return rc, out, err

        return programs_gpu.look(programs_gpu.nvidia_smi(run, tool), programs_gpu.scan_pci())

    def units(self, names):
        units = (DOCKER, GATEWAY_UNIT, *ROUTER_UNITS, *names, *instance_leftovers.JOBS)
        shown = self.output(*commands.show(instance_status.PROPERTIES, *units))
        return instance_status.parse_units(shown, time.monotonic())

    def images(self, names):
        """The image that each container runs from."""
        docker = self.module.params["docker"]
        if not names or not os.path.exists(docker):
            return {}
        output = commands.inspected(self.run, docker, "container", "{{.Name}} {{.Image}}", *names)
        return dict(line.lstrip("/").split(" ", 1) for line in output.splitlines() if line.startswith("/"))

    def runs(self, unit):
        fields = "MESSAGE,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"
        line = ["journalctl", "--quiet", "--all", "--output=json", f"--output-fields={fields}", f"--lines={LOG_LINES}"]
        return instance_status.parse_journal(self.output(*line, f"--unit={unit}"))

    def row(self, instance, units, images, gpus):
        unit = units.get(instance.unit, instance_status.Unit())
        well = unit.active == "active" and instance.answer and instance.answer.ready
        runs = [] if well else self.runs(instance.unit)
        docker_runs, group = units.get(DOCKER, instance_status.Unit()).active == "active", instance.record.group
        verdict = instance_status.judge(unit, instance.answer, instance.works, runs, docker_runs)
        return {
            "name": instance.name,
            "unit": instance.unit,
            "state": verdict.state,
            "healthy": verdict.healthy,
            "detail": verdict.detail,
            "remedy": verdict.remedy,
            "unit_state": f"{unit.active}/{unit.sub}",
            "enabled": unit.enabled,
            "since_s": unit.since_s,
            "restarts": unit.restarts,
            "restart_due": instance.restart_due(self.module.sha256) if unit.active == "active" else "",
            "model": instance.record.model,
            "revision": instance.revision(),
            "served": instance.record.served,
            "image": instance.record.image,
            "image_id": images.get(names.container_of(instance.name), ""),
            "url": instance.url(),
            "rank": group["rank"] if group else None,
            "nodes": list(group["nodes"]) if group else [],
            **load_figures(instance.load, instance.rates),
            **self.gpu_figures(instance, gpus),
        }

    def gpu_figures(self, instance, gpus):
        """The GPUs of an instance, how much of their memory is in use, and what they do now."""
        mine, lost = instance_status.own_gpus(instance.record.gpus, gpus)
        used, total = instance_status.gpu_memory(mine)
        use = gpu_use.together([self.uses.get(gpu.index, gpu_use.Use()) for gpu in mine])
        return {
            "gpus": instance_status.gpu_indices(instance.record.gpus, gpus),
            "gpu_uuids": [gpu.uuid for gpu in mine],
            "gpus_lost": lost,
            "gpu_memory_used_mib": used,
            "gpu_memory_mib": total,
            "gpu_utilization_percent": use.utilization_percent,
            "gpu_power_w": use.power_w,
            "gpu_power_limit_w": use.power_limit_w,
            "gpu_temperature_c": use.temperature_c,
        }


def load_figures(load, rates):
    """The requests of an engine and its KV cache, as its metrics show them; None for each figure that is unknown."""
    return {
        "requests_running": load.running if load else None,
        "requests_waiting": load.waiting if load else None,
        "requests_per_s": rates.requests if rates else None,
        "prompt_tokens_per_s": rates.prompt_tokens if rates else None,
        "generation_tokens_per_s": rates.generation_tokens if rates else None,
        "kv_cache_usage": load.kv_cache_usage if load else None,
    }


def instances(module):
    here = map(Instance, known.instances((module.params["unit_dir"],)))
    wanted = module.params["names"]
    return [instance for instance in here if not wanted or instance.name in wanted]


def listens(module):
    """Addresses and ports that the gateway listens on."""
    addresses = known.gateway_listens(unit=os.path.join(module.params["unit_dir"], GATEWAY_UNIT))
    return [f"{host} {port}" for host, port in addresses]


def of_router(units):
    """The router's units and workers. Empty without a router."""
    here = {name: units[name] for name in ROUTER_UNITS if name in units and units[name].loaded}
    return instance_router.status({name: f"{unit.active}/{unit.sub}" for name, unit in here.items()})


def leftovers(here, units):
    records = [instance.record for instance in here]
    try:
        noted = node_brought.read(node_brought.PATH)
    except (OSError, ValueError):  # the module that changes the file reports the error
        noted = {}
    folders = [os.path.dirname(instance.files.config) for instance in records if instance.files.config]
    return [
        *instance_leftovers.jobs(units.values()),
        *instance_leftovers.seconds(),
        *instance_leftovers.trials(units.values()),
        *instance_leftovers.brought(noted, records),
        *instance_leftovers.paths([instance.name for instance in here], folders),
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
    node, here = Node(module), instances(module)
    units = node.units([instance.unit for instance in here])
    active = [instance for instance in here if units.get(instance.unit, instance_status.Unit()).active == "active"]
    with ThreadPoolExecutor(max_workers=16) as pool:
        futures = [pool.submit(instance.ask, module.params["wait_s"]) for instance in active]
        # Done while the instances answer, since the rates take a second in any case.
        images = node.images([names.container_of(instance.name) for instance in active])
        gpus = node.gpus()
        for future in futures:
            future.result()
    rows = [node.row(instance, units, images, gpus) for instance in here]
    gateway = units.get(GATEWAY_UNIT, instance_status.Unit())
    messages = [gpus.message if any(row["gpus"] or row["gpus_lost"] for row in rows) else ""]
    messages += [instance_status.lost_text(row["unit"], row["gpus_lost"]) for row in rows]
    module.exit_json(
        changed=False,
        instances=rows,
        docker_runs=units.get(DOCKER, instance_status.Unit()).active == "active",
        front=f"{gateway.active}/{gateway.sub}" if gateway.loaded else "",
        front_since_s=gateway.since_s,
        front_listens=listens(module) if gateway.loaded else [],
        router=of_router(units),
        leftovers=[] if module.params["names"] else leftovers(here, units),
        gpu_message=" ".join(text for text in messages if text),
    )


if __name__ == "__main__":
    main()
