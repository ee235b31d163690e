"""The report in a browser, opened from disk."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rpbert import Tagger
from rpbert.analysis import explain_batch
from rpbert.analysis.posts import OUTCOMES, Outcome, row_of
from rpbert.analysis.report import page, sample
from rpbert.analysis.run import analyze
from rpbert.analysis.summary import MEASURES, Summary
from tests.analysis.common import NASTY, finder, posts_file
from tests.browser import Open, Watched
from tests.conftest import EVIDENCE, made_posts, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    posts_file(folder / "data", 24)
    finder(folder / "soft")
    finder(folder / "open", gate="none")
    data = folder / "data" / "posts.jsonl"
    analyze(str(folder / "soft"), data, folder / "out", against=str(folder / "open"))
    return folder


def data_of(page: Path) -> Any:
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>',
        page.read_text("utf-8"),
        re.DOTALL,
    )
    assert found
    return json.loads(found.group(1))


def test_one_file_that_asks_for_nothing(folder: Path) -> None:
    page = (folder / "out" / "report.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy.group(1).startswith("default-src 'none'; img-src data:;")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy.group(1)
    assert not re.search(r"<(link|iframe|object|embed)\b|\bsrc=[\"']?http|@import|url\(http", page)


def test_images_are_small(folder: Path) -> None:
    rows = [json.loads(row) for row in (folder / "out" / "posts.jsonl").read_text().splitlines()]
    shown = data_of(folder / "out" / "report.html")["posts"]
    pictures = [post.pop("picture") for post in shown]
    assert (len(shown), shown) == (25, rows)
    assert [picture is None for picture in pictures] == [row["r"] is None for row in rows]
    for picture in filter(None, pictures):
        content = picture.removeprefix("data:image/jpeg;base64,")
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert (image.format, image.size) == ("JPEG", (40, 30))


@given(st.lists(st.sampled_from(OUTCOMES)), st.integers(1, 30))
def test_each_outcome_has_its_share_of_the_page(outcomes: list[Outcome], room: int) -> None:
    shown = Counter(outcomes[number] for number in sample(outcomes, room))
    assert shown.total() == min(room, len(outcomes))
    for one, other in product(set(outcomes), repeat=2):  # one has more only if other has no more
        assert shown[one] <= shown[other] + 1 or shown[other] == outcomes.count(other)


def test_a_page_has_room_for_so_many_posts_and_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rpbert.analysis.report.IMAGE_BYTES", 2500)
    data = folder / "data" / "posts.jsonl"
    page = analyze(str(folder / "soft"), data, folder / "few", posts=7).report
    posts = data_of(page)["posts"]
    assert len(posts) == 7
    assert sum(len(post["picture"] or "") for post in posts) <= 2500
    assert any(post["picture"] for post in posts)
    assert "7 of 25 posts are on this page" in page.read_text("utf-8")


@pytest.fixture
def report(folder: Path, open_page: Open) -> Watched:
    return open_page((folder / "out" / "report.html").as_uri())


def ids(report: Watched) -> list[str]:
    return report.page.locator("article > h3 > b").all_text_contents()


def count(report: Watched) -> str:
    return report.page.locator("#count").inner_text()


def test_it_opens_without_an_error_or_a_request_and_says_the_change_in_words(
    report: Watched, folder: Path
) -> None:
    assert count(report) == "25 of 25 posts"
    assert report.page.title() == "What the image did: soft against open"
    assert report.page.locator("article").count() == 20
    report.page.get_by_role("button", name="Show 5 more").click()
    assert report.page.locator("article").count() == 25
    assert not report.page.locator("#more").is_visible()
    assert (report.errors, report.foreign) == ([], [])
    summary = json.loads((folder / "out" / "summary.json").read_text("utf-8"))
    said = report.page.locator("main").inner_text()
    for row in summary["means"]:
        if (row["measure"], row["by"]) == ("s_tv", "r"):
            share = 100 * row["change"]["mean"] / row["models"][1]["mean"]
            how = "more" if share > 0 else "less"
            assert f"{abs(share):.0f} % {how} at {row['relation']} ones" in said


def test_a_script_in_a_post_is_text(report: Watched) -> None:
    report.page.get_by_role("searchbox").fill("owned")
    assert count(report) == "1 of 25 posts"
    text = report.page.locator("article .text").first
    # Labels stand between the words; without them the text is what was posted.
    text.evaluate("line => line.querySelectorAll('.label').forEach(label => label.remove())")
    assert text.text_content() == NASTY
    assert report.page.title().startswith("What the image did")
    assert report.page.locator("article script").count() == 0
    assert not report.errors


def test_search_filter_and_sort(report: Watched, folder: Path) -> None:
    page, data = report.page, data_of(folder / "out" / "report.html")
    posts = {post["id"]: post for post in data["posts"]}
    page.get_by_role("searchbox").fill("lake USER5")
    assert ids(report) == ["5"]
    page.get_by_role("button", name="Reset").click()
    page.get_by_text("25 of 25 posts", exact=True).wait_for()

    def entities(post: dict[str, Any]) -> set[str]:
        found = [e for model in post["models"] for e in model["entities"]] + post["gold"]
        return {entity[0] for entity in found}

    def errors(post: dict[str, Any]) -> set[str]:
        return {error[0] for model in post["models"] for error in model["errors"]}

    for name, value, chosen in (
        ("Image", "adds", lambda post: post["label"]),
        ("Image", "none", lambda post: post["id"] in ("3", "4")),
        ("Type", "LOC", lambda post: "LOC" in entities(post)),
        ("Error", "spurious", lambda post: "spurious" in errors(post)),
    ):
        page.get_by_role("combobox", name=name).select_option(value)
        assert count(report) == f"{sum(map(bool, map(chosen, posts.values())))} of 25 posts"
        page.get_by_role("combobox", name=name).select_option("")

    def order(by: str) -> list[Any]:
        page.get_by_role("combobox", name="Sort").select_option(by)
        page.get_by_role("button", name="Show").click()
        return [posts[id] for id in ids(report)]

    page.get_by_role("button", name="Show").click()
    *known, last, lowest = [post["r"] for post in order("r-down")]
    assert (known, last, lowest) == (sorted(known, reverse=True), None, None)
    places = [data["outcomes"].index(post["outcome"]) for post in order("changed")]
    assert places == sorted(places)
    assert not report.errors


def test_maps_are_drawn_for_all_words_and_for_the_one_under_the_pointer(report: Watched) -> None:
    page = report.page
    page.get_by_role("combobox", name="Sort").select_option("data")
    article = page.locator("article").first
    pixels = "canvas => canvas.toDataURL()"
    canvases = article.locator("canvas")
    assert canvases.count() == 2
    whole = [canvases.nth(i).evaluate(pixels) for i in (0, 1)]
    assert whole[0] != whole[1]
    blank = "canvas => { const c = canvas.cloneNode(); return c.toDataURL(); }"
    assert canvases.first.evaluate(blank) not in whole
    assert "Attention of all words" in (canvases.first.get_attribute("aria-label") or "")
    article.locator(".word").nth(2).hover()
    assert "Attention of “user0”" in (canvases.first.get_attribute("aria-label") or "")
    assert canvases.first.evaluate(pixels) != whole[0]
    page.get_by_label("Heat map").uncheck()
    assert not canvases.first.is_visible()
    assert not report.errors


def test_the_keyboard_does_it_all(report: Watched) -> None:
    page = report.page
    page.keyboard.press("/")
    page.keyboard.type("Como")
    found = ids(report)
    assert 0 < len(found) < 25
    while page.evaluate("document.activeElement.tagName") != "BUTTON":  # to the end of the tools
        page.keyboard.press("Tab")
    focused = "document.activeElement.querySelector('h3 b').textContent"
    word = "document.activeElement.dataset.word"
    for keys, read, expected in (
        ("jj", focused, found[1]),
        ("k", focused, found[0]),
        (["ArrowRight"] * 2, word, "1"),
        (["ArrowLeft"] * 2, word, ""),
    ):
        for key in keys:
            page.keyboard.press(key)
        assert page.evaluate(read) == expected
    page.keyboard.press("h")
    assert not page.get_by_label("Heat map").is_checked()
    assert not report.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_stands_in_the_way(folder: Path, open_page: Open, scheme: str, width: int) -> None:
    """Of people who see little or use no mouse, by axe-core; and nothing is cut on a phone."""
    report = open_page(
        (folder / "out" / "report.html").as_uri(),
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )
    assert report.violations() == []
    assert report.page.evaluate("document.documentElement.scrollWidth") <= width
    assert not report.errors


@pytest.mark.parametrize("kind", ["stored-regions", "captions"])
def test_other_evidence_is_drawn_too(folder: Path, open_page: Open, kind: str) -> None:
    tagger = Tagger(tiny("rpbert", evidence=EVIDENCE[kind]), "cpu")
    posts = made_posts(6)
    summary = Summary(["one"])
    explained = explain_batch(tagger, posts)
    rows = [row_of(post, [one], int(post.id)) for post, one in zip(posts, explained, strict=True)]
    for row in rows:
        summary.add(row)
    path = folder / f"{kind}.html"
    chosen = list(zip(rows, posts, strict=True))
    path.write_text(page("made", summary, chosen, dict.fromkeys(MEASURES, "")), "utf-8")
    opened = open_page(path.as_uri())
    article = opened.page.locator("article").first
    assert article.locator("canvas").count() == (0 if kind == "captions" else 1)
    if kind == "captions":
        assert article.locator(".pieces").inner_text() == posts[0].caption
        styles = "all => all.map(s => s.style.background)"
        assert all("rgb" in s for s in article.locator(".pieces span").evaluate_all(styles))
    assert opened.errors == []
