# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: image_layout
short_description: Download a container image to a folder, without Docker
version_added: 1.0.0
description:
  - Downloads an image from its registry to a folder, which M(gpunode.llm.image_pull) loads on a node without a network.
  - C(skopeo) downloads the image in a transient systemd unit. Layers stay compressed. A complete layer is not fetched
    again. The host needs no Docker.
  - The image is the one for this host's architecture.
author:
  - gpunode contributors (@gpunode)
extends_documentation_fragment:
  - gpunode.llm.internal
attributes:
  check_mode:
    description: Reports whether the image would be fetched, and fetches nothing.
    support: full
  diff_mode:
    description: Shows the image before and after.
    support: full
options:
  image:
    description: The image, by a release's tag or by its digest.
    type: str
    required: true
  path:
    description: The folder of the images. Each image has its own subfolder.
    type: path
    required: true
  tls_verify:
    description: Whether the registry must have a certificate that this host trusts. V(false) also accepts plain HTTP.
    type: bool
    default: true
  update:
    description: Whether to ask the registry again for the image of a tag that was downloaded before.
    type: bool
    default: false
  wait_s:
    description: How long one call waits before it reports progress, in seconds.
    type: int
    default: 10
  resume:
    description: The value of RV(ignore:resume) from the previous call. The action plugin sets it.
    type: dict
"""

EXAMPLES = r"""
- name: The engine for a node without a network
  gpunode.llm.image_layout:
    image: vllm/vllm-openai:v0.33.0
    path: /srv/bundle/images
"""

RETURN = r"""
name:
  description: The name under which the image will be on a node. It differs from O(image) where that has no tag.
  type: str
  returned: success
digest:
  description: The digest under which the registry knows the image.
  type: str
  returned: when known
done:
  description: Whether the work has ended.
  type: bool
  returned: always
progress:
  description: Where the transfer stands.
  type: str
  returned: always
"""

import hashlib
import json
import os
import platform

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.docker import image as docker_image, layout as docker_layout
from ..module_utils.hub import snapshot as hub_snapshot
from ..module_utils.node import files as node_files, schema as node_schema, words
from ..module_utils.units import job as units_job


class Layout:
    def __init__(self, module):
        self.module, self.params = module, module.params
        self.reference = docker_image.parse_reference(self.params["image"])
        self.name = docker_layout.loaded_name(self.reference)
        self.folder = os.path.join(self.params["path"], docker_layout.layout_name(self.name))
        self.skopeo = module.get_bin_path("skopeo") or ""
        self.unit = units_job.unit_name("gpunode-layout", self.name)

    def fail(self, sentence):
        self.module.fail_json(msg=f"{sentence.rstrip('.')}.", done=True, progress="")

    def finish(self, changed, digest):
        diff = {"before": "" if changed else f"{self.name}\n", "after": f"{self.name}\n"}
        self.module.exit_json(
            changed=changed, done=True, progress=f"{self.name} is here", name=self.name, digest=digest, diff=diff
        )

    def recorded(self):
        """The digest of the complete image in the folder, empty if there is none."""
        try:
            record = json.loads(node_files.read_text(os.path.join(self.folder, docker_layout.RECORD)))
            image = docker_layout.parse_manifest(record["manifest"])
        except (OSError, ValueError, KeyError):
            return ""
        blobs = (image.config, *image.layers)
        whole = all(hub_snapshot.size_of(os.path.join(self.folder, blob.path)) == blob.size for blob in blobs)
        return record["digest"] if whole else ""

    def inspect(self, name):
        tls = f"--tls-verify={str(self.params['tls_verify']).lower()}"
        rc, out, err = self.module.run_command([self.skopeo, "inspect", "--raw", tls, f"docker://{name}"])
        if rc != 0:
            self.fail(docker_image.explain(self.params["image"], err.splitlines()).sentence)
        return out

    def ask(self):
        """Which image it is, for good: what the tag stands for may change while the layers come."""
        raw = self.inspect(f"{self.reference.repository}{self.mark()}")
        chosen = docker_layout.choose(json.loads(raw), platform.machine())
        if chosen:
            raw = self.inspect(f"{self.reference.repository}@{chosen}")
        return {"digest": f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}", "manifest": json.loads(raw)}

    def mark(self):
        return f"@{self.reference.digest}" if self.reference.digest else f":{self.reference.tag}"

    def spec(self, digest):
        tls = f"--src-tls-verify={str(self.params['tls_verify']).lower()}"
        source = f"docker://{self.reference.repository}@{digest}"
        return units_job.JobSpec(
            name=self.unit,
            argv=[self.skopeo, "copy", "--retry-times=5", tls, source, f"oci:{self.folder}:{self.name}"],
            description=f"Fetch the image {self.name} into {self.folder}",
            environment_file=self.proxies(),
            # User= gives the job root's HOME, where the logins to registries are.
            properties={"User": "root"},
            paths=units_job.absolute(self.folder),
        )

    def proxies(self):
        """The task's proxies for the job, in a file of root's: they may hold a password."""
        path = f"/run/gpunode/{self.unit}.env"
        names = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") if os.environ.get(name)]
        node_files.write_atomically(path, "".join(f'{name}="{os.environ[name]}"\n' for name in names), mode=0o600)
        return path

    def step(self):
        """Wait for at most wait_s seconds, then report."""
        run = self.module.run_command
        resume = self.params["resume"]
        if not resume:
            record = self.ask()
            os.makedirs(self.folder, mode=0o755, exist_ok=True)
            resume = {**record, "job": units_job.start_or_attach(run, self.spec(record["digest"])).invocation}
        state = units_job.wait(run, self.unit, self.params["wait_s"])
        image = docker_layout.parse_manifest(resume["manifest"])
        if state.state == "running":
            here = words.size(min(sum(docker_layout.sizes(self.folder)), image.size))
            progress = f"fetching {self.name}: {here} of {words.size(image.size)}"
            self.module.exit_json(changed=False, done=False, progress=progress, resume=resume)
        log = units_job.log_tail(run, self.unit, resume["job"])
        units_job.forget(run, self.unit)
        if state.state != "succeeded":
            self.fail(docker_image.explain(self.params["image"], log).sentence)
        self.seal(resume["digest"])
        self.finish(changed=True, digest=resume["digest"])

    def seal(self, digest):
        """Write what Docker needs besides the layout, and last the record which marks it as complete."""
        path = os.path.join(self.folder, "index.json")
        index = json.loads(node_files.read_text(path))
        # skopeo may have written configuration and manifest anew, in OCI's form; the layers are as they were.
        written = docker_layout.Blob(index["manifests"][0]["digest"], 0)
        manifest = json.loads(node_files.read_text(os.path.join(self.folder, written.path)))
        image = docker_layout.parse_manifest(manifest)
        node_files.write_atomically(path, docker_layout.named_index(index, self.name))
        node_files.write_atomically(
            os.path.join(self.folder, docker_layout.MANIFEST), docker_layout.docker_manifest(image, self.name)
        )
        record = {"image": self.params["image"], "digest": digest, "manifest": manifest}
        node_files.write_atomically(
            os.path.join(self.folder, docker_layout.RECORD), json.dumps(node_schema.numbered(record), indent=1) + "\n"
        )


def main():
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "tls_verify": {"type": "bool", "default": True},
            "update": {"type": "bool", "default": False},
            "wait_s": {"type": "int", "default": 10},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    try:
        layout = Layout(module)
        digest = layout.recorded()
        if digest and not module.params["resume"] and not module.params["update"]:
            layout.finish(changed=False, digest=digest)
        if module.check_mode:
            layout.finish(changed=True, digest="")
        if not layout.skopeo:
            layout.fail("skopeo is not installed on this host")
        layout.step()
    except (ValueError, OSError, units_job.JobError) as error:
        module.fail_json(msg=f"{error}.", done=True, progress="")


if __name__ == "__main__":
    main()
