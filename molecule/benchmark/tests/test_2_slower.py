# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An engine that was made slow is told from noise. It stays slow for the tests after this one."""

from __future__ import annotations

from conftest import SLOW, Controller


def test_a_regression_is_told_and_fails_the_play(controller: Controller) -> None:
    files = controller.files()
    before = controller.benchmark(benchmark_repeats=3, benchmark_concurrency=[16])
    assert before.status == 0, before.text[-3000:]
    record = controller.new(files)
    made_slow = controller.site(vllm_extra_args=SLOW, vllm_beside=False)
    assert made_slow.status == 0, made_slow.text[-3000:]
    files = controller.files()
    settings = {"benchmark_repeats": 3, "benchmark_concurrency": [16], "benchmark_compare": str(record)}
    result = controller.benchmark(**settings, benchmark_fail_if_slower=True)
    assert result.status != 0
    assert f"Slower than {record.stem} beyond noise" in result.words
    # What differs, and the figures that say so; one sentence fails it, and no dictionary.
    assert "max-num-seqs" in result.words
    assert "output_tokens_per_s" not in result.text
    # It was measured all the same.
    assert controller.new(files).exists()
