# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_pull
short_description: Pull a container image with Docker, with progress
version_added: 1.0.0
description:
  - Pulls an image unless it is on the node already.
  - The pull runs in a transient systemd unit on the node. It continues if the connection breaks or the play is stopped,
    and a later run waits for the same pull.
  - The play shows how many layers are complete during the pull.
  - The name of the image must have the tag of a release or a digest. The module refuses V(latest), because its meaning
    changes with every release.
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
      - A folder on the node with images from M(gpunode.llm.image_layout). The module loads the image from there and
        asks no registry. O(image) must then have a tag, because Docker knows no digest for a loaded image.
    type: path
  attempts:
    description:
      - How often to start the pull if the registry cannot be reached or breaks the transfer. Complete layers are not
        fetched again.
    type: int
    default: 3
  timeout_s:
    description: How long the whole pull may take, in seconds.
    type: int
    default: 7200
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
seealso:
  - module: community.docker.docker_image_pull
"""

EXAMPLES = r"""
- name: Pull the engine
  gpunode.llm.image_pull:
    image: vllm/vllm-openai:v0.33.0

- name: Load the engine from a folder, without a registry
  gpunode.llm.image_pull:
    image: vllm/vllm-openai:v0.33.0
    source: /srv/bundle/images

- name: Pull the engine from a mirror, pinned by its digest
  gpunode.llm.image_pull:
    image: mirror.example.net/vllm/vllm-openai@sha256:6d9c2b3f0c1a4d0e9b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f
"""

RETURN = r"""
seconds:
  description: How many seconds the pull took, by the clock of the controller.
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
  description: The digest of the image in the registry. Empty for an image that was loaded from a folder.
  type: str
  returned: success
size_bytes:
  description: The unpacked size on disk, in bytes.
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

# docker prints a few lines for each layer, and the image of an engine has about forty layers.
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
        # A stopped play can leave a finished job behind.
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
        """Wait for at most wait_s seconds, then report."""
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
        # A large layer shows no other progress for minutes, so the message contains the time.
        step = f"loading {self.image}" if self.module.params["source"] else self.pulling(lines)
        self.report(f"{step} ({int(elapsed) // 30 * 30} s)")

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
        # Docker may be missing in check mode, because a real run would have installed it before.
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
