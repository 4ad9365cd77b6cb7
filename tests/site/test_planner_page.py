# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of the planner in a browser says what the playbook `plan` prints, and what serving_plan returns.

The site is served as it was built (docs/_build). With SCREENSHOTS=FOLDER each question is photographed: light, dark and
on a phone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

CHECKOUT = Path(__file__).resolve().parents[2]
SITE = CHECKOUT / "docs" / "_build"
#: Milliseconds. Pyodide starts in two seconds where nothing else runs.
PATIENCE = 180_000
MIXTURE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "torch_dtype": "bfloat16",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
NAME = "my-org/My-Mixture"
#: What is entered, and what is typed for the same.
QUESTIONS = {
    "catalogue": ({"model": "8b", "gpu": "h100", "count": "1"}, {"model": "8b", "gpus": "1xh100"}),
    "pasted": (
        {"model": "", "name": NAME, "config": json.dumps(MIXTURE, indent=2), "gpu": "h100", "count": "8"},
        {"model": NAME, "gpus": "8xh100", "extra_models": {NAME: {"repo_id": NAME, "config": MIXTURE}}},
    ),
    "refused": ({"model": "405b", "gpu": "h100", "count": "2"}, {"model": "405b", "gpus": "2xh100"}),
    "nodes": (
        {"model": "405b", "gpu": "h100", "count": "8", "nodes_per_engine": "2"},
        {"model": "405b", "gpus": "8xh100", "nodes_per_engine": 2},
    ),
    "objective": (
        {"model": "70b", "gpu": "a100-80", "count": "8", "objective": "latency", "max_model_len": "32K"},
        {"model": "70b", "gpus": "8xa100-80", "objective": "latency", "max_model_len": "32K"},
    ),
}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/planner.html"
    server.shutdown()


def opened(browser: Browser, address: str) -> Page:
    """The page with its planner, and a list of what it asked others for or could not do."""
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda request: page.wrong.append(request.url) if not request.url.startswith(HERE) else None)
    page.goto(address)
    page.wait_for_function("window.answered")
    return page


HERE = ("http://127.0.0.1:", "data:", "blob:")


@pytest.fixture(scope="session")
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = opened(browser, address)
    yield page
    assert page.wrong == []


def ask(page: Page, entered: dict[str, str]) -> dict[str, Any]:
    """Enter a question as a user does. Returns what the planner answered."""
    if not page.locator("details[open] #planner-context").count():
        page.get_by_text("More", exact=True).click()
    for name, value in {"objective": "throughput", "max_model_len": "", "nodes_per_engine": "", **entered}.items():
        field = page.locator(f"#planner [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    # Each field that was left before was a question of its own, and has been answered.
    page.evaluate("window.answered = null")
    page.get_by_role("button", name="Plan", exact=True).click()
    page.wait_for_function("window.answered")
    return page.evaluate("window.answered")


def run(*command: str) -> str:
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "0"}
    env |= {"ANSIBLE_INVENTORY_UNPARSED_WARNING": "0", "GPUNODE_LAB_NODES": "none"}
    env |= {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed(typed: dict[str, Any], tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """What the playbook prints, and its row."""
    given = {key if key in ("model", "gpus") else f"vllm_{key}": value for key, value in typed.items()}
    given["json"] = str(tmp_path / "plan.json")
    text = run("ansible-playbook", "playbooks/plan.yml", "-e", json.dumps(given))
    (rows,) = json.loads((tmp_path / "plan.json").read_text())["nodes"].values()
    return text, rows[0]


def planned(typed: dict[str, Any]) -> dict[str, Any]:
    """What the action serving_plan returns, which site.yml serves by."""
    arguments = json.dumps({**typed, "fail_on_findings": False})
    result = run("ansible", "localhost", "-m", "gpunode.llm.serving_plan", "-a", arguments)
    return json.loads(result[result.index("{") :])


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_page_shows_what_the_playbook_prints(page: Page, tmp_path: Path, name: str) -> None:
    entered, typed = QUESTIONS[name]
    answer = ask(page, entered)
    text, row = printed(typed, tmp_path)
    shown = lines(page.text_content("#planner-text"))
    at = lines(text).index(shown[0])
    assert lines(text)[at : at + len(shown)] == shown
    assert row["fits"] is ("plan" in answer)
    if row["fits"]:
        assert {key: row[key] for key in answer["instance"] if key in row} == {
            key: value for key, value in answer["instance"].items() if key in row
        }
        assert f"{row['kv_cache_tokens']}" in page.text_content("#planner-answer dl")
    else:
        assert "It is not planned" in page.text_content("#planner-answer")


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_page_plans_what_is_served(page: Page, name: str) -> None:
    entered, typed = QUESTIONS[name]
    answer, result = ask(page, entered), planned(typed)
    assert answer["findings"] == result["findings"]
    if result["plan"]:
        (instance,) = result["plan"]["instances"]
        assert answer["config"] == instance["config"]
        assert answer["warnings"] == result["plan"]["warnings"]
        assert answer["rejected"] == result["plan"]["rejected"]
        used = [gpu for gpu in answer["gpus"] if gpu["weights"]]
        assert [int(gpu["index"]) for gpu in used] == instance["gpu_indices"]
        assert {round(gpu["weights"], 2) for gpu in used} == {instance["weights_gib_per_gpu"]}
    rows = page.locator("#planner-answer tbody tr")
    assert rows.count() == len(answer["rejected"]) > 0
    assert answer["rejected"][-1]["reason"] in rows.last.text_content()


@pytest.mark.parametrize("name", ["pasted", "refused"])
def test_the_picture_has_the_memory_of_each_gpu(page: Page, name: str) -> None:
    answer = ask(page, QUESTIONS[name][0])
    bars = page.locator("#planner-answer svg")
    assert bars.count() == len(answer["gpus"])
    for place, gpu in enumerate(answer["gpus"]):
        whole = max(gpu["total"], gpu["weights"] + gpu["overhead"] + gpu["kv"])
        for part in ("weights", "overhead", "kv"):
            drawn = bars.nth(place).locator(f"rect.{part}")
            width = drawn.get_attribute("width") if drawn.count() else "0%"
            assert float(width.removesuffix("%")) == pytest.approx(100 * gpu[part] / whole, abs=0.01)
        assert f"weights {gpu['weights']:.1f}, " in bars.nth(place).get_attribute("aria-label")


def test_a_link_carries_the_question(page: Page, browser: Browser) -> None:
    """A pasted config.json as well; and the address alone is what it takes."""
    first = ask(page, QUESTIONS["pasted"][0])
    assert re.search(r"#.*config=", page.url)
    second = opened(browser, page.url)
    assert second.evaluate("window.answered") == first
    assert second.input_value("[name=config]") == QUESTIONS["pasted"][0]["config"]
    second.evaluate("location.hash = 'model=8b&gpus=2xh200'")
    second.wait_for_function("window.answered.commands[0].includes('gpus=2xh200')")
    assert second.wrong == []
    second.close()


def test_a_link_that_was_cut_is_the_page_without_one(page: Page, browser: Browser) -> None:
    cut = opened(browser, page.url.partition("#")[0] + "#gpus=2xh200&config=bZ!!")
    assert cut.evaluate("window.answered.plan.model") == "meta-llama/Llama-3.1-8B-Instruct, BF16"
    assert cut.wrong == []
    cut.close()


def test_nothing_stays_of_an_answer_whose_question_has_changed(page: Page) -> None:
    ask(page, QUESTIONS["catalogue"][0])
    page.locator("[name=config]").evaluate("field => { field.value = '' }")
    page.locator("[name=model]").select_option("")
    page.wait_for_selector("#planner-answer", state="hidden")
    assert page.text_content("#planner-state") == "Paste the model's config.json."


def test_invalid_json_is_refused(page: Page) -> None:
    answer = ask(page, {"model": "", "config": "{broken", "gpu": "h100", "count": "1"})
    assert answer["findings"][0].startswith("config.json is not JSON: ")
    assert answer["findings"][0] in page.text_content("#planner-answer")


def test_it_is_used_by_keyboard_and_every_field_has_a_label(page: Page) -> None:
    ask(page, QUESTIONS["catalogue"][0])
    fields = page.locator("#planner :is(input, select, textarea)")
    for place in range(fields.count()):
        assert fields.nth(place).evaluate("field => field.labels.length") == 1
    page.evaluate("window.answered = null")
    page.focus("[name=count]")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_function("window.answered && window.answered.commands[0].includes('gpus=2xh100')")


SCREENS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
}


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_wider_than_the_screen(browser: Browser, page: Page, screen: str) -> None:
    """What is wide scrolls in itself; the colours of the parts are those of the screen's scheme."""
    ask(page, QUESTIONS["pasted"][0])
    seen = browser.new_page(**{"viewport": {"width": 1300, "height": 900}, **SCREENS[screen]})
    seen.set_default_timeout(PATIENCE)
    seen.goto(page.url)
    seen.wait_for_function("window.answered")
    assert seen.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colour = seen.locator("rect.weights").first.evaluate("rect => getComputedStyle(rect).fill")
    assert colour == ("rgb(109, 155, 245)" if screen == "dark" else "rgb(59, 111, 212)")
    if folder := os.environ.get("SCREENSHOTS"):
        seen.screenshot(path=f"{folder}/{screen}.png", full_page=True)
    seen.close()
