# Copyright (c) gpunode contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hub refuses is told apart, with its remedy and the page to visit, before a package or a byte is fetched."""

from __future__ import annotations

import pytest
from conftest import CONVERGE, FETCH, REPO
from scenario import on_node

GATED, GONE, PAGES = "gpunode/tiny-llama-gated", "d" * 40, "https://huggingface.co"
#: What each needs of variables and of the model's entry, and what it is told.
REFUSALS = {
    "a bad token": (
        {"huggingface_token": "hf_lab_stranger"},
        {},
        ("The Hugging Face token is not valid", f"{PAGES}/settings/tokens"),
    ),
    "without licence": (
        {"huggingface_token": "hf_lab_no_licence"},
        {"repo_id": GATED},
        (f"has not been granted access to {GATED}", f"Accept its licence at {PAGES}/{GATED}"),
    ),
    "without scope": (
        {"huggingface_token": "hf_lab_no_scope"},
        {"repo_id": GATED},
        ("give it read access to gated repositories", f"{PAGES}/settings/tokens"),
    ),
    "without a token": (
        {"huggingface_token": "", "huggingface_token_path": "/etc/huggingface/none"},
        {"repo_id": GATED},
        (f"{GATED} is gated and no token was given", f"Accept its licence at {PAGES}/{GATED}"),
    ),
    "no such repository": (
        {},
        {"repo_id": "weights/none"},
        ("weights/none does not exist on", f"Check {PAGES}/weights/none"),
    ),
    "the revision is gone": (
        {},
        {"revision": GONE},
        (f"{REPO} has no revision {GONE}", f"{PAGES}/{REPO}/commits/main"),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_has_its_sentence(pull, refusal: str) -> None:
    variables, model, message = REFUSALS[refusal]
    play = pull.run(CONVERGE, **variables, case={"repo_id": REPO, **model})
    assert play.status != 0
    text = play.words
    for sentence in message:
        assert sentence in text
    assert "1 problem found; nothing was changed" in text
    assert play.changed == 0
    assert pull.sent() == {}
    assert on_node(f"ls -d {pull.home}", check=False) == ""
    assert (variables.get("huggingface_token") or "hf_lab_good") not in play.text


def test_the_role_alone_is_refused_as_well(pull) -> None:
    play = pull.run(FETCH, huggingface_token="hf_lab_no_licence", huggingface_instances=[{"repo_id": GATED}])
    assert play.status != 0
    assert f"has not been granted access to {GATED}" in play.words
    assert pull.sent() == {}
