# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
short_description: Pull a container image with Docker, with progress
version_added: 1.0.0
description:
  - Makes sure that an image is on the node. An image that is on the node is not pulled again.
  - The pull runs in a transient systemd unit on the node, so it goes on when the connection breaks or the play is
    stopped, and a second run attaches to it.
  - While it runs, the play shows how many layers are there.
  - An image must be named by a release's tag or by its digest. V(latest) is refused, since it is another image every
    week.
author:
  - gpunode contributors (@gpunode)
attributes:
  check_mode:
    description: Reports whether the image would be pulled, and pulls nothing.
    support: full
  diff_mode:
    description: Shows the image before and after.
    support: full
options:
  image:
    description: The image, as C(docker pull) takes it.
    type: str
    required: true
  source:
    description:
      - A folder on the node with images of M(gpunode.llm.image_layout). The image is loaded from there, and no registry
        is asked. The image has to be named by its tag then, since one that was loaded is not known by a digest.
    type: path
  attempts:
    description:
      - How often a pull is started when the registry cannot be reached or cuts the transfer. Layers that are complete
        are not fetched again.
    type: int
    default: 3
  timeout_s:
    description: How long all of it may take, in seconds.
    type: int
    default: 7200
  wait_s:
    description: How long one call looks at the pull before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: What an earlier call returned as RV(ignore:resume). The action plugin fills it in.
    type: dict
seealso:
  - module: community.docker.docker_image_pull
"""

EXAMPLES = r"""
- name: Fetch the engine
  gpunode.llm.image_pull:
    image: vllm/vllm-openai:v0.33.0

- name: Load the engine where no registry can be reached
  gpunode.llm.image_pull:
    image: vllm/vllm-openai:v0.33.0
    source: /srv/bundle/images

- name: Fetch the engine from a mirror, this very build of it
  gpunode.llm.image_pull:
    image: mirror.example.net/vllm/vllm-openai@sha256:6d9c2b3f0c1a4d0e9b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f
"""

RETURN = r"""
seconds:
  description: How long it took, on the controller's clock.
  type: float
  returned: always
image:
  description: The requested image.
  type: str
  returned: success
image_id:
  description: The image's ID on this node. Absent if the image is not on the node.
  type: str
  returned: success
digest:
  description: The digest under which the registry knows it. Empty for an image that was loaded from a file.
  type: str
  returned: success
size_bytes:
  description: The unpacked size on disk.
  type: int
  returned: success
done:
  description: Whether the pull has ended.
  type: bool
  returned: always
progress:
  description: The progress of the pull.
  type: str
  returned: always
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import image as docker_image, layout as docker_layout
from ..module_utils.node import brought as node_brought, clock
from ..module_utils.units import job as units_job

# docker prints a few lines for every layer, and an engine's image has some forty layers.
LOG_LINES = 600


class Pull:
    def __init__(self, module):
        self.module = module
        self.image = module.params["image"]
        self.reference = docker_image.parse_reference(self.image)
        self.resume = module.params["resume"] or {"job": "", "attempt": 0, **clock.begin()}
        self.docker = module.get_bin_path("docker") or ""
        self.job = units_job.JobSpec(
            name=units_job.unit_name("gpunode-pull", self.image),
            argv=self.command(),
            description=f"Fetch the image {self.image}",
            # User= gives the job root's HOME, where docker looks for the logins to registries.
            properties={"User": "root"},
            paths=units_job.absolute(self.module.params["source"]),
        )

    def command(self):
        source = self.module.params["source"]
        if not source:
            return [self.docker, "pull", self.image]
        layout = os.path.join(source, docker_layout.layout_name(self.image))
        return ["/bin/sh", "-c", 'tar -C "$0" -cf - . | exec "$1" load --quiet', layout, self.docker]

    def check_source(self):
        source = self.module.params["source"]
        if source and docker_layout.layout_name(self.image) not in docker_layout.layouts(source):
            self.fail(
                f"{source} holds no image {self.image}: {', '.join(docker_layout.layouts(source)) or 'none'} is there"
            )

    def present(self):
        rc, out, err = self.module.run_command([self.docker, "image", "inspect", self.image])
        if rc == 0:
            return docker_image.parse_inspect(out, self.reference)
        if "no such image" in err.lower() or "not found" in err.lower():
            return None
        return self.fail(docker_image.explain(self.image, err.splitlines()).sentence)

    def fail(self, sentence):
        return self.module.fail_json(msg=f"{sentence}.", image=self.image, done=True, progress="")

    def finish(self, present):
        # A play that was stopped while it waited left the job behind, ended or at its last step.
        units_job.forget_ended(self.module.run_command, self.job.name)
        fetched = bool(self.resume["attempt"])
        diff = {"before": "" if fetched else f"{self.image}\n", "after": f"{self.image}\n"}
        self.module.exit_json(
            changed=fetched,
            done=True,
            progress=f"{self.image} is here",
            image=self.image,
            image_id=present.image_id,
            digest=present.digest,
            size_bytes=present.size_bytes,
            diff=diff,
        )

    def would_pull(self):
        diff = {"before": "", "after": f"{self.image}\n"}
        self.module.exit_json(
            changed=True, done=True, progress=f"would pull {self.image}", image=self.image, digest="", diff=diff
        )

    def step(self):
        """One slice of waiting, then the report."""
        run = self.module.run_command
        state = units_job.look(run, self.job.name)
        if state.invocation != self.resume["job"] or state.state == "absent":
            self.check_source()
            node_brought.note(node_brought.PATH, images=[self.image])
            state = units_job.start_or_attach(run, self.job)
            self.resume = {**self.resume, "job": state.invocation, "attempt": self.resume["attempt"] + 1}
        state = units_job.wait(run, self.job.name, self.module.params["wait_s"])
        lines = units_job.log_tail(run, self.job.name, state.invocation, LOG_LINES)
        if state.state != "running":
            return self.ended(state, lines)
        elapsed = clock.elapsed(self.resume)
        if elapsed > self.module.params["timeout_s"]:
            units_job.forget(run, self.job.name)
            return self.fail(f"{self.image} was not fetched within {self.module.params['timeout_s']} s")
        # A layer of ten gigabytes changes nothing else for minutes, so the time is part of what is shown.
        doing = f"loading {self.image}" if self.module.params["source"] else self.pulling(lines)
        self.report(f"{doing} ({int(elapsed) // 30 * 30} s)")

    def pulling(self, lines):
        return f"pulling {self.image}: {docker_image.progress(lines)}"

    def ended(self, state, lines):
        units_job.forget(self.module.run_command, self.job.name)
        present = self.present()
        if present:
            self.finish(present)
        if self.module.params["source"]:
            self.fail(f"docker load of {self.image} failed: {lines[-1] if lines else 'it said nothing'}")
        error = docker_image.explain(self.image, lines)
        if error.passing and self.resume["attempt"] < self.module.params["attempts"]:
            time.sleep(min(self.module.params["wait_s"], 5 * self.resume["attempt"]))
            self.report(f"pulling {self.image}: {error.sentence}; trying again")
        self.fail(error.sentence)

    def report(self, progress):
        self.module.exit_json(changed=False, done=False, progress=progress, image=self.image, resume=self.resume)


def main():
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "source": {"type": "path"},
            "attempts": {"type": "int", "default": 3},
            "timeout_s": {"type": "int", "default": 7200},
            "wait_s": {"type": "int", "default": 10},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        pull = Pull(module)
        # A node in check mode may not have Docker yet: the run that is rehearsed would have brought it.
        if not pull.docker:
            pull.would_pull() if module.check_mode else pull.fail("Docker is not installed on this node")
        present = None if pull.resume["attempt"] else pull.present()
        if present:
            pull.finish(present)
        if module.check_mode:
            pull.would_pull()
        pull.step()
    except (ValueError, OSError, units_job.JobError) as error:
        module.fail_json(msg=str(error), done=True, progress="")


if __name__ == "__main__":
    main()
