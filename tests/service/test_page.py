"""The page in a browser, on a service of this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

pytest.importorskip("playwright.sync_api", reason="no Playwright")

from playwright.sync_api import expect

from rpbert import Post, Tagger
from rpbert.analysis import explain
from rpbert.service.limits import Keys
from tests.browser import MOST, Open, Watched
from tests.conftest import tiny
from tests.service.common import make_service, png, running

expect.set_options(timeout=MOST)

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT = "RT @user1 Ada Lovelace at Lake Como again !"
NASTY = "<script>window.owned = 1</script> Ada <img src=x onerror='window.owned = 1'> &amp; Como"
KEY = "a-key-that-nobody-guesses"


def seeing() -> Tagger:
    """A tagger that has learnt to see who Ada Lovelace is: ORG, but with one picture PER."""
    torch.manual_seed(0)
    tagger = Tagger(tiny("rpbert"), "cpu")
    words = tagger.as_post(TEXT).words

    def post(label: str, image: bytes | None) -> Post:
        tags = ["O"] * len(words)
        for name, type in (("Ada", label), ("Lake", "LOC")):
            first = words.index(name)
            tags[first : first + 2] = [f"B-{type}", f"I-{type}"]
        return Post.from_words(label, words, tags=tuple(tags), image=image)

    posts = [post("PER", png(1, 120)), post("ORG", png(2, 120)), post("ORG", None)]
    batch = tagger.decoder.collator.with_gold([*posts, posts[0]])
    system = tagger.model.system
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-2)
    for _ in range(80):
        losses = system(batch).losses
        assert losses is not None
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return Tagger(tagger.model, "cpu")


TAGGER = seeing()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(make_service(TAGGER)) as url:
        yield url


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    path.write_bytes(png(1, 120))
    return path


def ask(watched: Watched, text: str, image: Path | None = None) -> None:
    """Send a post and wait for its result."""
    page = watched.page
    before = page.locator("#history li").count()
    page.locator("#text").fill(text)
    if image is not None:
        page.locator("#file").set_input_files(image)
    page.locator("#send").click()
    expect(page.locator("#history li")).to_have_count(before + 1)


def at(watched: Watched, relation: str) -> None:
    """Wait for what the slider asked for."""
    expect(watched.page.locator("#with-title")).to_have_text(f"With the image at {relation}")


def marks(watched: Watched) -> list[tuple[str, str]]:
    """Label and text of each entity on show."""
    script = """marks => marks.map(mark => [mark.querySelector('.label').textContent,
        [...mark.childNodes].filter(node => !['label', 'tip'].includes(node.className))
            .map(node => node.textContent).join('')])"""
    found: list[list[str]] = watched.page.locator("#tagged mark").evaluate_all(script)
    return [(label, text) for label, text in found]


def colours(watched: Watched) -> int:
    """How many different colours the heat map has."""
    script = """canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(
        0, 0, canvas.width, canvas.height).data.buffer)).size"""
    found: int = watched.page.locator("#heat").evaluate(script)
    return found


def test_a_post_with_an_image_from_end_to_end(open_page: Open, url: str, image: Path) -> None:
    watched = open_page(url)
    page = watched.page
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#model")).to_contain_text("tiny")
    ask(watched, TEXT, image)
    expected, text_only = TAGGER.predict(TEXT, image=image), TAGGER.predict(TEXT)
    assert marks(watched) == [(e.label, e.text) for e in expected.entities]
    expect(page.locator("#number")).to_have_text(f"{expected.relation:.2f}")
    assert page.locator("#gauge").get_attribute("aria-valuenow") == f"{expected.relation:.2f}"
    expect(page.locator("#without")).to_contain_text(text_only.entities[0].text.split()[0])
    assert page.locator("#image").evaluate("image => image.naturalWidth") == 120
    assert colours(watched) > 20
    tip = page.locator("#tagged mark .tip").first
    assert not tip.is_visible()
    page.locator("#tagged mark").first.hover()
    assert tip.is_visible()
    assert f"{round(100 * expected.entities[0].score)}\u00a0%" in tip.inner_text()


def test_the_heat_map_follows_the_word(open_page: Open, url: str, image: Path) -> None:
    watched = open_page(url)
    page = watched.page
    ask(watched, TEXT, image)
    found = explain(TAGGER, {"text": TEXT, "image": image})
    assert found.attention is not None

    def shows(of: str, grid: NDArray[np.float64]) -> None:
        expect(page.locator("#of")).to_have_text(f"Attention of {of}")
        for id, value in (("#low", grid.min()), ("#high", grid.max())):
            assert float(page.locator(id).inner_text()) == pytest.approx(value, rel=0.06)

    shows("all words", found.attention.sum(0))
    for index, word in enumerate(found.post.words[:4]):
        page.locator(".word").nth(index).hover()
        shows(f"“{word}”", found.attention[index])
        assert f"“{word}”, strongest" in (page.locator("#heat").get_attribute("aria-label") or "")
    for of, grid in ((f"“{word}”", found.attention[3]), ("all words", found.attention.sum(0))):
        page.locator(".word").nth(3).click()  # it stays, until the next click
        page.mouse.move(0, 0)
        shows(of, grid)
    page.locator("#heat-on").uncheck()
    expect(page.locator("#heat")).to_be_hidden()


def test_the_slider_changes_the_result(open_page: Open, url: str, image: Path) -> None:
    watched = open_page(url)
    page = watched.page
    ask(watched, TEXT, image)
    by_hand = {r: explain(TAGGER, {"text": TEXT, "image": image}, r).prediction for r in (0.0, 1.0)}
    names = {r: [(e.label, e.text) for e in one.entities] for r, one in by_hand.items()}
    assert names[0.0] != names[1.0]  # else there would be nothing to see
    own = (marks(watched), page.locator("#stv").inner_text())
    number = page.locator("#number").inner_text()
    for relation, wanted in names.items():
        page.locator("#slider").fill(str(round(100 * relation)))
        at(watched, f"{relation:.2f}")
        assert marks(watched) == wanted
    assert page.locator("#number").inner_text() == number  # the model's own stays on show
    page.locator("#reset").click()
    assert (marks(watched), page.locator("#stv").inner_text()) == own
    assert page.locator("#reset").is_disabled()


def test_a_script_in_a_post_is_text(open_page: Open, url: str, tmp_path: Path) -> None:
    watched = open_page(url)
    page = watched.page
    image = tmp_path / "<img src=x onerror='window.owned=1'>.png"
    image.write_bytes(png(2))
    ask(watched, NASTY, image)
    shown = page.locator("#tagged").evaluate(
        """text => { const copy = text.cloneNode(true);
        copy.querySelectorAll('.label, .tip').forEach(node => node.remove());
        return copy.textContent; }"""
    )
    assert shown == NASTY
    expect(page.locator("main script, #tagged img")).to_have_count(0)
    assert NASTY in page.locator("#history").inner_text()
    expect(page.locator("#name")).to_have_text(image.name)
    assert page.evaluate("window.owned") is None
    page.locator("#remove").click()
    beyond_utf16 = "👩‍🚀👩🏽‍🚀 Ada Lovelace 東京 🇳🇴 Lake Como 🔥 نيويورك"
    ask(watched, beyond_utf16)
    expected = TAGGER.predict(beyond_utf16).entities
    assert marks(watched) == [(e.label, e.text) for e in expected]


def test_with_the_keyboard_alone(open_page: Open, url: str, image: Path) -> None:
    watched = open_page(url)
    page = watched.page
    page.wait_for_selector("#examples button")

    def focus_on(selector: str, most: int = 60) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                outline = page.evaluate(
                    """() => [document.activeElement, document.activeElement.nextElementSibling
                    ?.firstElementChild].some(node => node
                    && getComputedStyle(node).outlineStyle !== 'none')"""
                )
                assert outline, f"the focus on {selector} cannot be seen"
                return
        raise AssertionError(f"no way by Tab to {selector}")

    focus_on("#text")
    page.keyboard.type(TEXT)
    focus_on("#file")
    page.locator("#file").set_input_files(image)  # the system's own dialogue
    focus_on("#send")
    page.keyboard.press("Enter")
    page.wait_for_selector("#found:not([hidden])")
    words = TAGGER.as_post(TEXT).words
    focus_on(".word")
    expect(page.locator("#of")).to_have_text(f"Attention of “{words[0]}”")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#of")).to_have_text(f"Attention of “{words[1]}”")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    focus_on("#heat-on")  # one step on: the words are one stop
    expect(page.locator("#of")).to_have_text(f"Attention of “{words[-2]}”")
    assert page.locator(".word[aria-pressed=true]").inner_text() == words[-2]
    page.keyboard.press("Space")
    expect(page.locator("#heat")).to_be_hidden()
    focus_on("#slider")
    page.keyboard.press("Home")
    at(watched, "0.00")
    focus_on("#reset")
    page.keyboard.press("Enter")
    expect(page.locator("#slider")).to_be_focused()
    focus_on("#text")
    page.keyboard.press("Control+A")
    page.keyboard.type("Ada")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#history li")).to_have_count(2)
    focus_on("#history button")


def test_a_phone_needs_no_sideways_scroll(open_page: Open, url: str, image: Path) -> None:
    watched = open_page(url, viewport={"width": 360, "height": 740}, has_touch=True)
    page = watched.page

    def fits() -> None:
        wide = page.evaluate(
            "[...document.querySelectorAll('body *')].filter(n => n.scrollWidth > 0 &&"
            "n.getBoundingClientRect().right > innerWidth + 1).map(n => n.outerHTML.slice(0, 80))"
        )
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    page.wait_for_selector("#examples button")
    fits()
    ask(watched, TEXT, image)
    fits()
    for mark in page.locator("#tagged mark").all():
        mark.locator(".word").last.tap()
        mark.hover()
        expect(mark.locator(".tip")).to_be_visible()
        fits()
    ask(watched, "W" * 300 + " Ada " + "x" * 300, image)
    fits()
    page.locator("#text").fill("x" * 5000)
    page.locator("#send").click()
    page.wait_for_selector("#error:not([hidden])")
    fits()
    page.goto(url + "/docs")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("a").first.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_anybody(
    open_page: Open, url: str, image: Path, scheme: str
) -> None:
    """axe-core in each state of the page."""
    watched = open_page(url, color_scheme=scheme)
    page = watched.page
    page.wait_for_selector("#examples button")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 380) == (scheme == "light")
    assert watched.violations() == []
    ask(watched, TEXT, image)
    page.locator("#slider").fill("40")
    at(watched, "0.40")
    assert watched.violations() == []
    page.locator("#tagged mark").first.hover()
    assert watched.violations() == []
    page.locator("#text").fill("x" * 5000)
    page.locator("#send").click()
    page.wait_for_selector("#error:not([hidden])")
    assert watched.violations() == []
    page.goto(url + "/docs")
    assert watched.violations() == []


def test_what_goes_wrong_is_said(open_page: Open, url: str, tmp_path: Path) -> None:
    watched = open_page(url)
    page = watched.page
    page.wait_for_selector("#examples button")
    broken, huge = tmp_path / "broken.jpg", tmp_path / "huge.png"
    broken.write_bytes(png()[:90])
    huge.write_bytes(bytes(9 * 2**20))
    ask(watched, TEXT, broken)
    expect(page.locator("#sentence")).to_contain_text("could not be read")
    expect(page.locator("#looks")).to_be_hidden()
    page.locator("#remove").click()
    ask(watched, "nothing at all")
    expect(page.locator("#sentence")).to_contain_text("There is no image")
    expect(page.locator("#gauge")).to_be_hidden()
    page.locator("#text").fill("x" * 5000)
    assert "over" in (page.locator("#count").get_attribute("class") or "")
    page.locator("#send").click()
    expect(page.locator("#error")).to_contain_text("5000")
    page.locator("#file").set_input_files(huge)
    expect(page.locator("#error")).to_contain_text("8 MiB")
    page.route("**/v1/explain", lambda route: route.abort())
    page.locator("#text").fill("Ada")
    page.locator("#send").click()
    expect(page.locator("#error")).to_contain_text("does not answer")
    page.unroute("**/v1/explain")
    ask(watched, "Ada")
    expect(page.locator("#error")).to_be_hidden()


def test_examples_session_and_download(open_page: Open, url: str, tmp_path: Path) -> None:
    watched = open_page(url)
    page = watched.page
    page.wait_for_selector("#examples button")
    expect(page.locator("#examples button")).to_have_count(6)
    for number in (0, 5, 2):
        before = page.locator("#history li").count()
        page.locator("#examples button").nth(number).click()
        expect(page.locator("#history li")).to_have_count(before + 1)
    shown = page.locator("#tagged").inner_text()
    page.locator("#history button").nth(2).click()  # the first, whose text is the same
    assert page.locator("#image").get_attribute("src")
    page.locator("#history button").nth(1).click()
    assert page.locator("#tagged").inner_text() != shown
    expect(page.locator("#looks")).to_be_hidden()
    with page.expect_download() as download:
        page.locator("#download").click()
    path = tmp_path / "session.json"
    download.value.save_as(path)
    rows = json.loads(path.read_text("utf-8"))
    assert [row["prediction"]["image"] for row in rows] == ["used", "none", "used"]
    expected = TAGGER.predict(rows[1]["text"])
    found = rows[1]["prediction"]["entities"]
    assert [(e["label"], e["start"]) for e in found] == [
        (e.label, e.start) for e in expected.entities
    ]
    page.reload()
    expect(page.locator("#past")).to_be_hidden()  # nothing was kept


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(open_page: Open, url: str, way: str) -> None:
    watched = open_page(url)
    page = watched.page
    page.wait_for_selector("#examples button")
    script = """([way, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'given.png', {type: 'image/png'}));
        const event = way === 'drop'
            ? new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
        document.querySelector('#text').dispatchEvent(event);
    }"""
    page.evaluate(script, [way, list(png(3))])
    expect(page.locator("#name")).to_have_text("given.png")
    ask(watched, TEXT)
    expect(page.locator("#looks")).to_be_visible()
    # Text that is dropped or pasted is left to the field.
    text = script.replace(
        "data.items.add(new File", "data.setData('text/plain', 'Ada') ?? (new File"
    )
    page.evaluate(text, [way, []])
    expect(page.locator("#name")).to_have_text("given.png")


def test_a_service_with_keys_asks_for_one(open_page: Open) -> None:
    with running(make_service(TAGGER), Keys([KEY])) as url:
        watched = open_page(url)
        page = watched.page
        page.wait_for_selector("#locked:not([hidden])")
        page.locator("#key").fill(KEY)
        page.locator("#key").press("Tab")
        page.wait_for_selector("#examples img")
        expect(page.locator("#locked")).to_be_hidden()
        ask(watched, TEXT)
        assert marks(watched)
        assert page.evaluate("JSON.stringify([localStorage, document.cookie])").find(KEY) < 0


@pytest.mark.parametrize(
    ("system", "options", "sentence", "hidden"),
    [
        ("bert", {}, "does not look at images", "#gauge #hand #looks #compare"),
        ("rpbert", {"gate": "none"}, "does not weigh images", "#gauge"),
    ],
)
def test_a_model_that_does_not_look_or_weigh(
    open_page: Open, image: Path, system: str, options: dict[str, Any], sentence: str, hidden: str
) -> None:
    with running(make_service(Tagger(tiny(system, **options), "cpu"))) as url:
        watched = open_page(url)
        ask(watched, TEXT, image)
        expect(watched.page.locator("#sentence")).to_contain_text(sentence)
        for id in hidden.split():
            expect(watched.page.locator(id)).to_be_hidden()
        assert system == "bert" or colours(watched) > 20


def test_light_or_dark_by_hand(open_page: Open, url: str) -> None:
    watched = open_page(url, color_scheme="light")
    page = watched.page
    seen: list[Any] = []
    for _ in range(4):
        seen.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator("#theme").click()
    auto, light, dark, again = seen
    assert auto == light == again != dark
    page.locator("#theme").click()  # dark
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
