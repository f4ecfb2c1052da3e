"""The report as a person meets it: opened in a browser, filtered, sorted, hovered, on a phone, in the dark."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbline.core.finding import Finding
from plumbline.diff.report import render

CHROMIUM = os.environ.get("PLUMBLINE_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
# what the page does before printing: draw everything at once
DRAW_ALL = "dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))"
HOSTILE = '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">{{7*7}}\u2028</script>'


def shift() -> Finding:
    words = "The|  capital| of|\n|Zuñi| 東京| 🙂|\tstep| one|,| then|   |done|.".split("|")
    labels = ("unshifted", "marginal", "shifted")
    tokens = [
        {
            "text": word,
            "score": (0.03, 0.45, 0.95)[k % 7 % 3] if k % 4 else 0.0,
            "label": labels[k % 7 % 3] if k % 4 else "unshifted",
            "note": f"rank under base: {k}\nbase    {word.strip() or '␣'} 41.2%   of 20.1%   in 9.8%\n"
            f"tuned   {word.strip() or '␣'} 88.0%   the 4.2%   a 1.1%",
        }
        for k, word in enumerate(words * 9)
    ]
    sides = [("easy", 0.021), ("hard", 0.118), ("a category with a long name", 0.074)]
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": np.arange(40),
                "y": np.exp(-np.arange(40) / s) * top,
            }
            for name, s, top in (("shifted", 6, 0.3), ("marginal", 12, 0.22))
        ],
        "layout": {
            "title": {"text": "Share of positions by place in the response"},
            "xaxis": {"title": {"text": "position"}},
            "yaxis": {"title": {"text": "share"}, "tickformat": ".0%"},
            "hovermode": "x unified",
        },
    }
    return Finding(
        name="token_shift",
        title="Shifted positions",
        value=0.0712,
        unit="share of positions",
        sentence="At 7.1% of positions the tuned model's token is not among the base's three best: a change of style, "
        "concentrated in the first five tokens of a response.",
        interval=(0.0655, 0.0774),
        interval_method="cluster bootstrap by prompt, 95%",
        n_items=18234,
        n_clusters=400,
        needs="Greedy responses of the tuned model and one tokenizer; means little when responses are short.",
        figure=figure,
        texts=(
            {"title": "prompt 17: What is the capital of …", "tokens": tokens},
            {"title": "prompt 203 " + HOSTILE, "tokens": tokens[:30]},
        ),
        parts=tuple(
            Finding(
                name=f"shifted_{i}",
                title=f"Shifted, {name}",
                value=v,
                unit="share of positions",
                sentence=f"{v:.1%} of positions shifted on {name} prompts.",
                interval=(v * 0.8, v * 1.2),
            )
            for i, (name, v) in enumerate(sides)
        ),
    )


def divergence() -> Finding:
    rng = np.random.default_rng(0)
    kl = np.sort(rng.gamma(0.3, 0.4, 400))
    rows = [
        {"prompt": f"prompt {i}: " + "how do I reset my password? " * (i % 5 + 1), "mean KLD": float(kl[-1 - i])}
        for i in range(60)
    ]
    parts = [
        ("p50", "Median KLD", 0.0123),
        ("p99", "99.0% KLD", 1.84),
        ("p999", "99.9% KLD", 4.402),
        ("max", "Maximum KLD", math.inf),
    ]
    return Finding(
        name="mean_kld",
        title="Mean KLD",
        value=0.1523,
        unit="nats",
        sentence="The tuned model moved 0.152 nats per token on average, but the worst 1% moved 1.84 nats or more.",
        interval=(0.1411, 0.1639),
        interval_method="cluster bootstrap by prompt, 95%",
        n_items=18234,
        n_clusters=400,
        needs="Positions scored by both models.",
        figure={
            "data": [
                {
                    "type": "bar",
                    "x": ["0-4", "5-9", "10-19", "20-49", "50+"],
                    "y": [0.41, 0.22, 0.12, 0.08, 0.05],
                    "name": "KL(base||tuned)",
                },
                {
                    "type": "bar",
                    "x": ["0-4", "5-9", "10-19", "20-49", "50+"],
                    "y": [0.38, 0.25, 0.11, 0.09, 0.04],
                    "name": "KL(tuned||base)",
                },
            ],
            "layout": {"barmode": "group", "title": "Mean KL by position", "yaxis": {"title": {"text": "nats"}}},
        },
        parts=tuple(Finding(name=n, title=t, value=v, unit="nats", sentence="") for n, t, v in parts),
        table=tuple(rows),
        warnings=("2 positions have infinite KL: the tuned model gives a token of the base probability zero.",),
    )


def flips() -> Finding:
    long = "She was born in Oldham and moved to the coast when she was four. " * 8
    rows = [
        {
            "id": f"qa-{i:03d}",
            "kind": "negative flip" if i % 3 else "positive flip",
            "prompt": long if i % 10 == 0 else f"Where was person {i} born?",
            "expected": ["Oldham", "Zürich", "القاهرة", "東京"][i % 4],
            "base": HOSTILE if i == 5 else f"Oldham {i}",
            "tuned": f"I cannot answer that ({i}).\nSorry." if i % 4 == 0 else None,
            "confidence_change": None if i % 9 == 0 else (i - 150) / 301,
            "n_tokens": i * 7 % 90,
        }
        for i in range(340)
    ]
    return Finding(
        name="negative_flips",
        title="Negative flips",
        value=0.0312,
        unit="share of labelled questions",
        sentence="3.1% of the questions that the base answers rightly are now wrong; look at the refusals first.",
        interval=(0.0205, 0.0437),
        interval_method="paired bootstrap, 95%",
        n_items=340,
        n_clusters=340,
        direction=-1,
        needs="Labelled questions answered by both models.",
        table=tuple(rows),
        parts=(
            Finding(name="accuracy_change", title="Change in accuracy", value=0.0241, interval=(0.004, 0.0431),
                    unit="change in share of questions", sentence="Net gain.", direction=1),
            Finding(name="mcnemar_p", title="McNemar p", value=0.0000213, sentence="The flips are not chance."),
        ),
    )  # fmt: skip


def weights() -> Finding:
    z = [[abs(math.sin(i * 3 + j)) * (i + 1) / 8 for j in range(7)] for i in range(8)]
    tensors = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(8)]
    ranks = [{"tensor": t, "rank": 8 + i % 3, "share_of_norm": 0.1 / (i + 1)} for i, t in enumerate(tensors)]
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return Finding(
        name="weight_change",
        title="Relative weight change",
        value=0.00412,
        unit="relative Frobenius norm",
        sentence="The weights moved by 0.4%, most in the last two layers; the embedding is frozen.",
        figure={
            "data": [{"type": "heatmap", "z": z, "x": names, "y": [f"layer {i}" for i in range(8)]}],
            "layout": {"title": {"text": "Change by layer and matrix"}, "height": 420},
        },
        parts=(
            Finding(name="effective_rank", title="Effective rank of the difference", value=8.3, unit="of 192",
                    sentence="Looks like an adapter of rank 8.",
                    table=tuple(ranks)),
        ),
    )  # fmt: skip


def others() -> list[Finding]:
    nothing = Finding(
        name="exposure_gap", title="Exposure gap", value=None, unit="nats", direction=-1, warnings=("No completions.",),
        sentence="Undefined: no prompt has a given completion; add `completion` to the prompts to measure it.",
    )  # fmt: skip
    calm = Finding(name="ece_change", title="Change in calibration error", value=-0.012, unit="ECE", direction=-1,
                   interval=(-0.031, 0.006), sentence="Calibration did not clearly change.")  # fmt: skip
    better = Finding(name="length_gain", title="Distinct-2 gain", value=0.083, unit="ratio", direction=1,
                     interval=(0.061, 0.102), sentence="Responses repeat themselves less.")  # fmt: skip
    hostile = Finding(name="hostile", title=HOSTILE, value=1234567, unit=HOSTILE, sentence=HOSTILE, needs=HOSTILE,
                      figure={"data": [{"x": [HOSTILE, '<a href="https://evil.example/">click</a>'], "y": [1, 2],
                                        "type": "bar", "text": ["<b>x</b>", "y"]}],
                              "layout": {"title": {"text": "Names <br>that bite"}}},
                      table=({HOSTILE: HOSTILE},), warnings=(HOSTILE,))  # fmt: skip
    return [nothing, calm, better, hostile]


def meta() -> dict[str, Any]:
    return {
        "base": "/models/acme/llama-15m-base-checkpoint-000120000",
        "tuned": "acme/llama-15m-chat-v2",
        "command": "plumbline diff /models/acme/llama-15m-base-checkpoint-000120000 acme/llama-15m-chat-v2 -o r.html",
        "times": {"created": "2026-11-21T12:00:00Z", "seconds": 133.4},
        "versions": {"plumbline": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.9"},
        "seed": 0,
        "template": "tuned",
        "same_tokenizer": True,
        "settings": {"max_new_tokens": 64, "batch_tokens": 8192, "nested": {"temperature": 1.0}},
        "hashes": {"base": "9f86d081884c7d65", "tuned": "60303ae22b998861", "inputs": {"qa": "fd61a03af4f77d87"}},
        "counts": {"prompts": 400, "qa": 340, "texts": 0, "positions": 18234},
        "warnings": ["3 prompts were longer than the context and were cut from the left."],
        "skipped": [{"name": "attention_sinks", "reason": "needs models, which this comparison does not have"}],
    }


def rich() -> list[Finding]:
    return [shift(), divergence(), flips(), weights(), *others()]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    render(rich(), meta(), path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}; set PLUMBLINE_CHROMIUM to a Chromium executable")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the report; afterwards nothing may have been logged, requested or run on a stranger's behalf."""
    opened, heard = [], []

    def go(**context: Any) -> Any:
        page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | context))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else heard.append(request.url)
        )
        page.goto(report.as_uri())
        opened.append(page)
        return page

    yield go
    for page in opened:
        assert page.evaluate("window.pwned") is None
        page.close()
    assert heard == []


def first_column(page: Any, section: str, column: int) -> list[str]:
    return page.locator(f"#{section} .grid tbody tr td:nth-child({column})").all_inner_texts()


def test_table_is_filtered_sorted_and_paged(visit: Any) -> None:
    page = visit()
    grid = page.locator("#f-negative_flips .grid")
    count, box = grid.locator("output"), grid.locator("input")
    assert count.inner_text() == "340 rows"
    assert grid.locator("tbody tr").count() == 25
    box.fill("zürich qa-13")
    assert count.inner_text() == "2 of 340"  # 133 and 137
    box.fill("no such row anywhere")
    assert count.inner_text() == "0 of 340"
    box.fill("")
    grid.locator("select").first.select_option(label="positive flip")
    assert count.inner_text() == "114 of 340"
    grid.locator("select").first.select_option(index=0)
    head = grid.locator("th", has_text="n tokens")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    values = [int(v) for v in first_column(page, "f-negative_flips", 8)]
    assert values == sorted((i * 7 % 90 for i in range(340)), reverse=True)[:25]
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    grid.get_by_role("button", name="Next").click()
    assert "26–50" in grid.locator(".pager").inner_text()
    assert int(first_column(page, "f-negative_flips", 8)[0]) == sorted(i * 7 % 90 for i in range(340))[25]


def test_missing_values_sort_last_and_long_cells_open(visit: Any) -> None:
    page = visit()
    head = page.locator("#f-negative_flips .grid th", has_text="confidence change")
    for _ in range(2):
        head.locator("button").click()
        assert first_column(page, "f-negative_flips", 7)[0] != "—"
    cell = page.locator("#f-negative_flips .clamp").first
    before = cell.bounding_box()["height"]
    cell.press("Enter")
    assert cell.get_attribute("aria-expanded") == "true"
    assert cell.bounding_box()["height"] > before * 1.5


def test_tokens_tell_by_mouse_keyboard_and_touch(visit: Any) -> None:
    page = visit()
    page.locator("#f-token_shift .heat").first.scroll_into_view_if_needed()
    tip, tokens = page.locator("#tip"), page.locator("#f-token_shift .token")
    assert tip.is_hidden()
    tokens.nth(4).hover()
    assert "Zuñi 88.0%" in tip.inner_text()
    page.mouse.move(2, 2)
    assert tip.is_hidden()
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    assert "rank under base: 1" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert "↵\n" in tokens.nth(3).inner_text()
    page.locator("#f-token_shift .legend button", has_text="shifted").last.click()
    assert page.locator("#f-token_shift .token.dim").count() > 10

    phone = visit(viewport={"width": 375, "height": 720}, has_touch=True, is_mobile=True)
    token = phone.locator("#f-token_shift .token").nth(6)
    phone.locator("#f-token_shift .heat").first.scroll_into_view_if_needed()
    token.tap()
    box = phone.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375
    assert "rank under base: 6" in phone.locator("#tip").inner_text()


def test_figures_answer_on_hover_and_show_names_as_text(visit: Any) -> None:
    page = visit()
    plot = page.locator("#f-token_shift .plot")
    plot.scroll_into_view_if_needed()
    page.wait_for_selector("#f-token_shift .plot .plot-container")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.wait_for_selector("#f-token_shift .hoverlayer text")
    assert "shifted" in page.locator("#f-token_shift .hoverlayer").text_content()
    page.locator("#f-hostile .plot").scroll_into_view_if_needed()
    page.wait_for_selector("#f-hostile .plot .plot-container")
    assert page.locator("#f-hostile .plot a").count() == 0
    assert "<a href=" in page.locator("#f-hostile .plot .xaxislayer-above").text_content()


def test_theme_is_taken_from_the_system_and_toggled(visit: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = visit(color_scheme="dark")
    dark = page.evaluate(background)
    button = page.locator("#theme")
    assert button.inner_text() == "Light theme"
    button.click()
    assert button.inner_text() == "Dark theme"
    assert page.evaluate(background) == "rgb(255, 255, 255)" != dark


def test_page_never_scrolls_sideways(visit: Any) -> None:
    page = visit(viewport={"width": 375, "height": 800})
    page.evaluate(DRAW_ALL)
    for width in (375, 320, 768):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (375, "light"), (1280, "dark")])
def test_screenshots(visit: Any, tmp_path: Path, width: int, scheme: str) -> None:
    """Desktop, phone, dark; PLUMBLINE_SCREENSHOTS names a folder that keeps the whole page for a person to look at."""
    kept = os.environ.get("PLUMBLINE_SCREENSHOTS")
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.evaluate(DRAW_ALL)
    file = Path(kept or tmp_path) / f"report-{width}-{scheme}.png"
    page.screenshot(path=file, full_page=bool(kept))
    assert file.stat().st_size > 20_000
