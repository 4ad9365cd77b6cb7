# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules that measure an engine. Their types and defaults are in module_utils/benchmark/run.py too."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  name:
    description: The name of the instance.
    type: str
    required: true
  runs:
    description:
      - What to measure. Each has C(name), C(profile) (an entry of C(catalog/benchmarks.yml)), C(concurrency) (a list of
        numbers), C(headline), C(repeats), C(per_client), C(least), C(seed), C(clients), C(goals) and C(rows) (lines of
        the user's own requests). A tune has one.
      - By default they are made of O(profiles).
    type: list
    elements: dict
  profiles:
    description:
      - The names of profiles of C(catalog/benchmarks.yml) and O(extra_profiles); for a tune one name. Used on the
        controller.
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
      - A file with the user's own requests, one JSON object with C(prompt) and C(output_tokens) on each line, in place
        of O(profiles). Used on the controller.
    type: str
    default: ""
  busy:
    description: Whether to go on even if the instance has requests of its clients. A tune in its place cuts them off.
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
    description: The release of this collection, for the result. The action plugin sets it.
    type: str
    default: ""
  results:
    description: The folder for the results.
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
"""
