# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of presets: the collection's, whose figures are those of their measurements, a user's, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.gpunode.llm.plugins.plugin_utils import hub_models
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog import Preset
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.catalog_files import HOME, load_catalog
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.flags import UNCOUNTED, check_args
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.messages import siblings
from ansible_collections.gpunode.llm.plugins.plugin_utils.planner.preset_files import LAYOUT, MEMORY, read_presets
from ansible_collections.gpunode.llm.tests.unit.plugins.planner.planning import CATALOG, FIXTURES

MEASURED = {
    "date": "2026-11-27",
    "engine": "0.33.0",
    "profile": "guide",
    "concurrency": 1000,
    "output_tokens_per_s": {"before": 7000.0, "after": 9000.5},
}
PRESET: dict[str, Any] = {
    "model": "8b",
    "gpus": {"type": "h100-80", "count": 1},
    "engines": "vllm 0.33",
    "vllm": {"max_num_batched_tokens": 16384},
    "measured": MEASURED,
}


def written(folder: Path, content: Any, name: str = "mine.yml") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def changed(**keys: Any) -> dict[str, Any]:
    """A file of one preset with other keys; None leaves one out."""
    entry = {key: value for key, value in {**PRESET, **keys}.items() if value is not None}
    return {"presets": {"p": entry}}


def measured(**keys: Any) -> dict[str, Any]:
    return changed(measured={key: value for key, value in {**MEASURED, **keys}.items() if value is not None})


# -- the collection's --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", CATALOG.presets, ids=lambda preset: preset.name)
def test_each_of_the_collection_has_its_measurement_and_can_be_taken(preset: Preset) -> None:
    by = preset.measured
    assert all((by.date, by.engine, by.profile, by.record))
    assert by.concurrency > 0
    assert by.after > by.before > 0
    assert preset.path == ""
    assert preset.count in range(1, 9)
    model = CATALOG.model(preset.model)
    assert model.key == preset.model
    assert not preset.weights or preset.weights in {other.key for other in siblings(model, CATALOG)}
    plain = {name: value for name, value in preset.options.items() if name not in (*LAYOUT, *MEMORY)}
    assert not plain.keys() & set(UNCOUNTED)
    assert check_args(plain, CATALOG.engine(None)) == ([], [])


def test_the_first_ones_have_the_figures_of_their_record() -> None:
    """Both numbers of each stand in the record that it names."""
    record = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-h100-throughput.json").read_text(encoding="utf-8"))
    one, two = ({entry["label"]: entry for entry in record[part]} for part in ("one_h100", "two_h100_nvlink"))
    presets = {preset.name: preset.measured for preset in CATALOG.presets}
    figures = {
        name: (by.before, by.after) for name, by in presets.items() if by.record == "vllm-0.26.0-h100-throughput"
    }
    assert figures == {
        "8b-fp8-1xh100-latency": (one["bf16"]["solo_tok_s"], one["fp8 weights"]["solo_tok_s"]),
        "8b-2xh100-throughput": (
            two["--data-parallel-size 2"]["n4000_out_tok_s"],
            two["--data-parallel-size 2 --api-server-count 4"]["n4000_out_tok_s"],
        ),
    }


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("8b-fp8-1xh100-throughput", "20261126-1xh100-8b-guide-defaults"),
        ("8b-fp8-1xh100-servers", "20261126-1xh100-8b-guide-fp8"),
        ("8b-fp8-2xh200-servers", "20261127-2xh200-8b-guide-fp8"),
    ],
)
def test_the_others_have_the_figures_of_the_published_records(name: str, before: str) -> None:
    by = next(preset.measured for preset in CATALOG.presets if preset.name == name)
    figures = []
    for record in (before, by.record):
        points = json.loads((HOME.parent / "docs" / "results" / f"{record}.json").read_text(encoding="utf-8"))["points"]
        (rate,) = [point["output_tokens_per_s"] for point in points if point["concurrency"] == by.concurrency]
        figures.append(round(rate, 1))
    assert figures == [by.before, by.after]


def test_70b_has_the_figures_of_two_measurements() -> None:
    """BF16 was measured by an earlier client: its figure is not among the published records."""
    by = next(preset.measured for preset in CATALOG.presets if preset.name == "70b-fp8-2xh200-throughput")
    speeds = json.loads((FIXTURES / "measurements" / "vllm-0.26.0-hopper.json").read_text(encoding="utf-8"))["speed"]
    (before,) = [entry["out_tok_s"] for entry in speeds if entry["what"].startswith("70b BF16, 2x H200, TP 2")]
    points = json.loads((HOME.parent / "docs" / "results" / f"{by.record}.json").read_text(encoding="utf-8"))["points"]
    (after,) = [point["output_tokens_per_s"] for point in points if point["concurrency"] == by.concurrency]
    assert (by.before, by.after) == (before, round(after, 1))


def test_the_file_of_the_collection_is_of_the_documented_form() -> None:
    raw = yaml.safe_load((HOME / "presets.yml").read_text(encoding="utf-8"))
    assert tuple(read_presets(raw, CATALOG).values()) == CATALOG.presets


def test_the_one_of_the_guide_is_a_preset() -> None:
    page = (HOME.parent / "docs" / "guides" / "speed.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(# presets/.*?)^```", page, re.MULTILINE | re.DOTALL)
    (one,) = read_presets(yaml.safe_load(block), CATALOG).values()
    assert (one.gpu, one.count, one.options) == ("h100", 1, {"max-num-batched-tokens": 16384})


# -- a user's ----------------------------------------------------------------------------------------------------------
def test_a_folder_of_the_user_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, {"presets": {"p": PRESET}})
    written(tmp_path, "no: preset", "notes.txt")
    written(tmp_path, "no: preset", ".hidden.yml")
    presets = {preset.name: preset for preset in load_catalog(presets_dir=str(tmp_path)).presets}
    mine = presets.pop("p")
    assert list(presets) == [preset.name for preset in CATALOG.presets]
    assert (mine.model, mine.gpu, mine.count, mine.objective, mine.release) == ("8b", "h100", 1, "throughput", "0.33")
    assert (mine.options, mine.path) == ({"max-num-batched-tokens": 16384}, str(path))
    assert (mine.measured.before, mine.measured.after) == (7000.0, 9000.5)


def test_a_preset_of_the_user_replaces_the_collections_of_its_name(tmp_path: Path) -> None:
    written(tmp_path, {"presets": {CATALOG.presets[0].name: PRESET}})
    first, *_others = load_catalog(presets_dir=str(tmp_path)).presets
    assert first.path
    assert len(load_catalog(presets_dir=str(tmp_path)).presets) == len(CATALOG.presets)


def test_a_date_needs_no_quotes_and_a_repository_no_entry(tmp_path: Path) -> None:
    text = yaml.safe_dump(changed(model="acme/Mine-8B")).replace("'2026-11-27'", "2026-11-27")
    written(tmp_path, text, "own.yaml")
    (mine,) = (preset for preset in load_catalog(presets_dir=str(tmp_path)).presets if preset.path)
    assert (mine.model, mine.measured.date) == ("acme/Mine-8B", "2026-11-27")


def test_the_setting_reaches_the_catalogue(tmp_path: Path) -> None:
    written(tmp_path, {"presets": {"p": PRESET}})
    extra = {"extra_models": {}, "extra_gpus": {}, "extra_engines": {}}
    assert "p" in {preset.name for preset in hub_models.known({**extra, "presets_dir": str(tmp_path)}).presets}
    assert hub_models.known({**extra, "presets_dir": None}).presets == CATALOG.presets


def test_no_folder_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none"
    with pytest.raises(ValueError, match=rf"^vllm_presets_dir: {missing} is no folder on this machine: create it"):
        load_catalog(presets_dir=str(missing))
    one, two = (written(tmp_path, {"presets": {"p": PRESET}}, name) for name in ("1.yml", "2.yml"))
    with pytest.raises(ValueError, match=rf"^The preset p is in {one} and in {two}: remove one of them\.$"):
        load_catalog(presets_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "presets are written as {presets: {NAME: {model: "),
        ("- a\n", "presets are written as"),
        ("presets: []\n", "presets are written as"),
        ("other: 1\n", "presets are written as"),
        ("a: [\n", "cannot be read as presets (while parsing"),
        ({"presets": {"p": 1}}, "preset p must be a dictionary"),
        (changed(modell="8b"), "preset p: unknown key 'modell', did you mean 'model'?"),
        (changed(model=None), "preset p: model is missing."),
        (changed(model="8c"), "preset p: the catalogue has no model '8c', did you mean '8b'?"),
        (changed(model="%%"), "preset p: the catalogue has no model '%%'."),
        (changed(weights="acme/other"), "preset p: the catalogue has no model 'acme/other'"),
        (changed(objective="speed"), "preset p: objective must be one of throughput, latency, not 'speed'."),
        (changed(gpus={"type": "h1000", "count": 1}), "gpus: the catalogue has no type 'h1000', did you mean 'h100'?"),
        (changed(gpus={"type": "%%", "count": 1}), "gpus: the catalogue has no type '%%'."),
        (
            changed(gpus={"type": "h100", "count": 0}),
            "gpus: count must be at least 1, and 0 of the CPU, not 0 of h100.",
        ),
        (changed(gpus={"type": "cpu", "count": 1}), "gpus: count must be at least 1, and 0 of the CPU, not 1 of cpu."),
        (changed(gpus={"type": "h100"}), "preset p: gpus: count is missing."),
        (changed(vllm={}), "preset p: it sets nothing: give vllm, env or weights."),
        (changed(vllm={"api-key": "x"}), "vllm: api-key is not for a preset: leave it out."),
        (changed(vllm={"max-model-len": 4096}), "vllm: max-model-len is not for a preset: the context is the user's"),
        (changed(vllm={"data-parallel-size": "two"}), "data-parallel-size must be a whole number of at least 1, not"),
        (changed(vllm={"kv-cache-dtype": "int3"}), "preset p: vllm: kv_cache_dtype must be one of auto, fp8"),
        (changed(env=[1]), "preset p: env must be a dictionary such as"),
        (changed(engines="the newest"), "engines must be a release such as 'vllm 0.33', not 'the newest'."),
        (changed(measured=None), "preset p: measured is missing."),
        (measured(profile=None), "preset p: measured: profile is missing."),
        (measured(date="yesterday"), "measured: date must be one such as 2026-11-25, not 'yesterday'."),
        (measured(concurrency=0), "measured: concurrency must be at least 1, not 0."),
        (measured(output_tokens_per_s={"before": 2, "after": 2}), "2 output tokens/s after are no gain over 2 before."),
        (measured(output_tokens_per_s={"before": 0, "after": 2}), "2 output tokens/s after are no gain over 0 before."),
        (measured(output_tokens_per_s={"before": 1, "after": float("inf")}), "inf output tokens/s after are no gain"),
        (measured(output_tokens_per_s={"before": 1}), "measured: output_tokens_per_s: after is missing."),
        (
            measured(output_tokens_per_s=None),
            "measured: give one of output_tokens_per_s and goodput_requests_per_s, as",
        ),
        (measured(goodput_requests_per_s={"before": 1, "after": 2}), "measured: give one of output_tokens_per_s and"),
        (
            measured(output_tokens_per_s=None, goodput_requests_per_s={"before": 2.5, "after": 2}),
            "2 requests/s within the goals after are no gain over 2.5 before.",
        ),
    ],
)
def test_a_file_that_is_no_preset_is_refused_with_its_path_and_a_remedy(
    tmp_path: Path, content: Any, message: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        load_catalog(presets_dir=str(tmp_path))
    text = str(refused.value)
    assert text.startswith(str(path))
    assert message in text
    assert "\n" not in text
    assert "orrect it" in text or "correct the file" in text


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"mine\.yml cannot be read as presets .* move it out of the folder"):
        load_catalog(presets_dir=str(tmp_path))
