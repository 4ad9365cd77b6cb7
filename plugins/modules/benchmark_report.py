# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

# This is a virtual module: it is implemented as an action plugin, since the report is made on the controller.

DOCUMENTATION = r"""
module: benchmark_report
short_description: Keep records of benchmarks on the controller, with a report
version_added: 1.0.0
author:
  - gpunode contributors (@gpunode)
description:
  - Writes each record of a benchmark or a tune to a file on the controller, and a report of them. The report is one
    HTML page that loads nothing, and a PNG of each plot. Benchmarks share a page, on which each is a series. A tune has
    a page of its own.
  - Compares a record with an earlier one of the same profile. A figure is faster or slower if it differs by more than
    its repeats do, and by more than 2 %. Without repeats it must differ by more than 5 %.
  - Makes no call on the node.
extends_documentation_fragment:
  - gpunode.llm.internal
options:
  records:
    description:
      - The records. A dictionary is a record as a node returned it, and is written to O(dir). A text is the path of a
        record on the controller, and its record is only shown.
    type: list
    elements: raw
    default: []
  dir:
    description:
      - The folder on the controller for the records and their reports. The module creates it.
      - The files are C(<id>.json), C(<id>.html) and C(<id>-<plot>.png). The page of several benchmarks has the id of
        the first.
    type: path
    required: true
  compare:
    description:
      - The path on the controller of an earlier record. It is compared with the record of the same profile, and of the
        same instance if there are several.
    type: path
    default: ""
  fail_if_slower:
    description: Whether to fail if any figure is slower than in the earlier record. The files are written all the same.
    type: bool
    default: false
  check_only:
    description:
      - Whether to check only that O(compare) can be read, and that files can be written to O(dir). A playbook does this
        before it measures.
    type: bool
    default: false
  profiles:
    description: The names of the profiles that will be measured. O(compare) must be the record of one of them.
    type: list
    elements: str
    default: []
attributes:
  action:
    description: Runs on the controller alone.
    support: full
  check_mode:
    description: In check mode, the module compares and returns the same, and writes no file.
    support: full
  diff_mode:
    description: The files are new, so there is no diff.
    support: none
requirements:
  - matplotlib on the controller, for the plots alone (C(requirements-report.txt))
"""

EXAMPLES = r"""
- name: Check that the measurement can be kept and compared
  gpunode.llm.benchmark_report:
    dir: ./benchmarks
    compare: ./benchmarks/20261101T120000Z-8b-guide.json
    profiles: [guide]
    check_only: true

- name: Keep the records and write the report
  gpunode.llm.benchmark_report:
    records: "{{ benchmark.records }}"
    dir: ./benchmarks
    compare: ./benchmarks/20261101T120000Z-8b-guide.json
    fail_if_slower: true
  register: report

- name: Show the figures
  gpunode.llm.show:
    text: "{{ report.text }}"

- name: Plot two kept records together
  gpunode.llm.benchmark_report:
    records:
      - ./benchmarks/20261101T120000Z-8b-guide.json
      - ./benchmarks/20261126T231500Z-8b-guide.json
    dir: ./benchmarks/both
"""

RETURN = r"""
files:
  description: The paths of the files that were written. In check mode, of those that would be.
  type: list
  elements: str
  returned: always
comparison:
  description: How the record compares with the earlier one. It is empty without one.
  type: dict
  returned: always
  contains:
    earlier:
      description: The id of the earlier record.
      type: str
    earlier_date:
      description: The date of the earlier record.
      type: str
    verdict:
      description:
        - One word for all figures. V(mixed) means that some are faster and others slower.
        - It is V(faster), V(slower), V(mixed) or V(the same).
      type: str
    changes:
      description: Each figure at each concurrency.
      type: list
      elements: dict
      sample:
        - concurrency: 256
          metric: output_tokens_per_s
          before: 6029.3
          after: 8154.0
          change: 0.3524
          noise: 0.051
          verdict: faster
    differences:
      description: What differs between the two in their image, options, driver, GPUs and the like.
      type: list
      elements: dict
      sample:
        - what: option max-num-seqs
          before: not set
          after: "64"
    notes:
      description: Sentences on what weakens the comparison, such as missing repeats.
      type: list
      elements: str
text:
  description: Lines for the screen. They are tables, warnings, the comparison, and the path of each page.
  type: list
  elements: str
  returned: always
"""
