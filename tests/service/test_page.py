"""The page in a browser, on a service of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("playwright.sync_api", reason="no Playwright")

from playwright.sync_api import Page, expect

from rpbert import Post, Prediction, Tagger
from rpbert.analysis import explain
from tests.browser import MOST, Open
from tests.conftest import tiny
from tests.service.common import KEY, make_service, png, running

expect.set_options(timeout=MOST)

IMAGE = png(1, 120)
TEXT = "RT @user1 Ada Lovelace at Lake Como again !"
WIDE = """[...document.querySelectorAll('body *')].filter(node => node.scrollWidth > 0 &&
    node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80))"""
NASTY = "<script>window.owned = 1</script> Ada <img src=x onerror='window.owned = 1'> &amp; Como"
BEYOND_UTF16 = "👩‍🚀👩🏽‍🚀 Ada Lovelace 東京 🇳🇴 Lake Como 🔥 نيويورك"


@pytest.fixture(scope="module")
def tagger() -> Tagger:
    """A tagger that has learnt to see who Ada Lovelace is: ORG, but with one picture PER."""
    torch.manual_seed(0)
    tagger = Tagger(tiny("rpbert"), "cpu")

    def post(label: str, image: bytes | None) -> Post:
        tags = f"O O B-{label} I-{label} O B-LOC I-LOC O O".split()
        return Post.from_words(label, tuple(TEXT.split()), tags=tuple(tags), image=image)

    posts = [post("PER", IMAGE), post("ORG", png(2, 120)), post("ORG", None)]
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


@pytest.fixture(scope="module")
def url(tagger: Tagger) -> Iterator[str]:
    with running(make_service(tagger)) as url:
        yield url


@pytest.fixture
def page(open_page: Open, url: str) -> Page:
    page = open_page(url).page
    page.wait_for_selector("#examples button")
    return page


def choose(page: Page, image: bytes, name: str = "a picture.png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": "image/png", "buffer": image})


def ask(page: Page, text: str, image: bytes | None = None) -> None:
    """Send a post and wait for its result."""
    before = page.locator("#history li").count()
    page.locator("#text").fill(text)
    if image is not None:
        choose(page, image)
    page.locator("#send").click()
    expect(page.locator("#history li")).to_have_count(before + 1)


def ask_too_much(page: Page) -> None:
    page.locator("#text").fill("x" * 5000)
    page.locator("#send").click()
    expect(page.locator("#error")).to_contain_text("5000")


def says(page: Page, **texts: str) -> None:
    """Wait until the elements of these ids contain these texts."""
    for id, text in texts.items():
        expect(page.locator(f"#{id.replace('_', '-')}")).to_contain_text(text)


def hides(page: Page, *ids: str) -> None:
    for id in ids:
        expect(page.locator(f"#{id}")).to_be_hidden()


def marks(page: Page) -> list[tuple[str, str]]:
    """Label and text of each entity on show."""
    script = """marks => marks.map(mark => [mark.querySelector('.label').textContent,
        [...mark.childNodes].filter(node => !['label', 'tip'].includes(node.className))
            .map(node => node.textContent).join('')])"""
    return [(label, text) for label, text in page.locator("#tagged mark").evaluate_all(script)]


def names(prediction: Prediction) -> list[tuple[str, str]]:
    return [(e.label, e.text) for e in prediction.entities]


def colours(page: Page) -> int:
    """How many different colours the heat map has."""
    script = """canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(
        0, 0, canvas.width, canvas.height).data.buffer)).size"""
    return int(page.locator("#heat").evaluate(script))


def test_a_post_with_an_image_from_end_to_end(page: Page, tagger: Tagger) -> None:
    """Its entities, what the text alone gives, and r by hand."""
    expect(page.locator("#empty")).to_be_visible()
    says(page, model="tiny")
    ask(page, TEXT, IMAGE)
    expected, text_only = tagger.predict(TEXT, image=IMAGE), tagger.predict(TEXT)
    number = f"{expected.relation:.2f}"
    assert marks(page) == names(expected)
    says(page, number=number, without=text_only.entities[0].text.split()[0])
    assert page.locator("#gauge").get_attribute("aria-valuenow") == number
    assert page.locator("#image").evaluate("image => image.naturalWidth") == 120
    assert colours(page) > 20
    tip = page.locator("#tagged mark .tip").first
    assert not tip.is_visible()
    page.locator("#tagged mark").first.hover()
    expect(tip).to_be_visible()
    assert f"{round(100 * expected.entities[0].score)}\u00a0%" in tip.inner_text()
    page.mouse.move(0, 0)

    own = (marks(page), page.locator("#stv").inner_text())
    seen = [own[0]]
    for relation in (0.0, 1.0):
        page.locator("#slider").fill(str(round(100 * relation)))
        says(page, with_title=f"With the image at {relation:.2f}", number=number)
        found = explain(tagger, {"text": TEXT, "image": IMAGE}, relation)
        assert marks(page) == names(found.prediction)
        seen.append(marks(page))
    assert seen[1] != seen[2]  # else there would be nothing to see
    page.locator("#reset").click()
    assert (marks(page), page.locator("#stv").inner_text()) == own
    assert page.locator("#reset").is_disabled()


def test_a_least_score_hides_names_and_shows_them_again(page: Page, tagger: Tagger) -> None:
    ask(page, TEXT, IMAGE)
    found = explain(tagger, {"text": TEXT, "image": IMAGE}).prediction
    least = min(round(100 * max(entity.score for entity in found.entities)), 99)
    page.locator("#least").fill(str(least))
    says(page, least_score=f"{least / 100:.2f}")
    assert marks(page) == names(found.above(least / 100))
    page.locator("#least").fill("0")
    assert marks(page) == names(found) != []


def test_the_heat_shows_where_a_word_looks(page: Page, tagger: Tagger) -> None:
    ask(page, TEXT, IMAGE)
    found = explain(tagger, {"text": TEXT, "image": IMAGE})
    assert found.attention is not None

    def shows(of: str, grid: Any) -> None:
        expect(page.locator("#of")).to_have_text(f"Attention of {of}")
        for id, value in (("#low", grid.min()), ("#high", grid.max())):
            assert float(page.locator(id).inner_text()) == pytest.approx(value, rel=0.06)

    word = f"“{found.post.words[3]}”"
    shows("all words", found.attention.sum(0))
    for of, grid in ((word, found.attention[3]), ("all words", found.attention.sum(0))):
        page.locator(".word").nth(3).click()  # it stays, until the next click
        page.mouse.move(0, 0)
        shows(of, grid)


def test_a_script_in_a_post_is_text(page: Page, tagger: Tagger) -> None:
    choose(page, png(2), name="<img src=x onerror='window.owned=1'>.png")
    ask(page, NASTY)
    script = """text => { const copy = text.cloneNode(true);
        copy.querySelectorAll('.label, .tip').forEach(node => node.remove());
        return copy.textContent; }"""
    assert page.locator("#tagged").evaluate(script) == NASTY
    expect(page.locator("main script, #tagged img")).to_have_count(0)
    says(page, history=NASTY, name="<img src=x onerror='window.owned=1'>.png")
    assert page.evaluate("window.owned") is None
    page.locator("#remove").click()
    ask(page, BEYOND_UTF16)
    assert marks(page) == names(tagger.predict(BEYOND_UTF16))


def test_with_the_keyboard_alone(page: Page, tagger: Tagger) -> None:
    def press(*keys: str, **texts: str) -> None:
        for key in keys:
            page.keyboard.press(key)
        says(page, **texts)

    def focus_on(selector: str, *keys: str, **texts: str) -> None:
        """Go on by Tab until it has the focus; then press the keys."""
        for _ in range(60):
            press("Tab")
            if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
                break
        expect(page.locator(f"{selector}:focus")).to_have_count(1)
        press(*keys, **texts)

    focus_on("#text")
    page.keyboard.type(TEXT)
    focus_on("#file")
    choose(page, IMAGE)  # the system's own dialogue
    focus_on("#send", "Enter")
    page.wait_for_selector("#found:not([hidden])")
    words = tagger.as_post(TEXT).words
    focus_on(".word", of=f"Attention of “{words[0]}”")
    press("End", "ArrowLeft", "Enter")
    focus_on("#heat-on", of=f"Attention of “{words[-2]}”")  # one step on: the words are one stop
    press("Space")
    hides(page, "heat")
    focus_on("#slider", "Home", with_title="With the image at 0.00")
    focus_on("#reset", "Enter")
    expect(page.locator("#slider")).to_be_focused()
    focus_on("#text", "Control+Enter")
    expect(page.locator("#history li")).to_have_count(2)
    focus_on("#history button")


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest.mark.parametrize(("scheme", "screen"), [("dark", {}), ("light", PHONE)], ids=str)
def test_nothing_stands_in_the_way_of_anybody(
    open_page: Open, url: str, scheme: str, screen: dict[str, Any]
) -> None:
    """In each state of the page: axe-core finds nothing; no phone has to scroll sideways."""
    watched = open_page(url, color_scheme=scheme, **screen)
    page = watched.page

    def fits() -> None:
        assert watched.violations() == []
        assert not screen or page.evaluate(WIDE) == []

    page.wait_for_selector("#examples button")
    fits()
    ask(page, TEXT, IMAGE)
    page.locator("#slider").fill("40")
    says(page, with_title="With the image at 0.40")
    mark = page.locator("#tagged mark").first
    mark.hover()
    expect(mark.locator(".tip")).to_be_visible()
    fits()
    ask(page, "W" * 300 + " Ada " + "x" * 300, IMAGE)
    ask_too_much(page)
    fits()
    page.goto(url + "/docs")
    fits()


def test_what_goes_wrong_is_said(page: Page) -> None:
    ask(page, TEXT, png()[:90])
    says(page, sentence="could not be read")
    hides(page, "looks")
    page.locator("#remove").click()
    ask(page, "nothing at all")
    says(page, sentence="There is no image")
    hides(page, "gauge")
    ask_too_much(page)
    choose(page, bytes(9 * 2**20))
    says(page, error="8 MiB")
    page.route("**/v1/explain", lambda route: route.abort())
    page.locator("#text").fill("Ada")
    page.locator("#send").click()
    says(page, error="does not answer")
    page.unroute("**/v1/explain")
    ask(page, "Ada")
    hides(page, "error")


def test_examples_session_and_download(page: Page, tagger: Tagger) -> None:
    examples = page.locator("#examples button")
    for before, number in enumerate((0, 5, 2)):
        examples.nth(number).click()
        expect(page.locator("#history li")).to_have_count(before + 1)
    shown = page.locator("#tagged").inner_text()
    page.locator("#history button").nth(1).click()
    assert page.locator("#tagged").inner_text() != shown
    hides(page, "looks")
    with page.expect_download() as download:
        page.locator("#download").click()
    rows = json.loads(download.value.path().read_text("utf-8"))
    assert [row["prediction"]["image"] for row in rows] == ["used", "none", "used"]
    expected = [(e.label, e.start) for e in tagger.predict(rows[1]["text"]).entities]
    assert [(e["label"], e["start"]) for e in rows[1]["prediction"]["entities"]] == expected
    page.reload()
    hides(page, "past")  # nothing was kept


def test_a_service_with_keys_asks_for_one(open_page: Open, tagger: Tagger) -> None:
    with running(make_service(tagger), KEY) as url:
        page = open_page(url).page
        page.wait_for_selector("#locked:not([hidden])")
        page.locator("#key").fill(KEY)
        page.locator("#key").press("Tab")
        page.wait_for_selector("#examples img")
        hides(page, "locked")
        ask(page, TEXT)
        assert marks(page)
        assert KEY not in page.evaluate("JSON.stringify([localStorage, document.cookie])")


def test_a_model_that_does_not_look(open_page: Open) -> None:
    with running(make_service(Tagger(tiny("bert"), "cpu"))) as url:
        page = open_page(url).page
        ask(page, TEXT, IMAGE)
        says(page, sentence="does not look at images")
        hides(page, "gauge", "hand", "looks", "compare")


def test_a_relation_that_is_not_learnt_is_no_figure(open_page: Open) -> None:
    model = tiny("rpbert")
    model.notes["relation_is_learnt"] = False
    with running(make_service(Tagger(model, "cpu"))) as url:
        page = open_page(url).page
        ask(page, TEXT, IMAGE)
        says(page, amount="not learnt", sentence="has not learnt")
        page.locator("#slider").fill("40")
        says(page, amount="0.40")
        page.locator("#reset").click()
        says(page, amount="not learnt")
        assert page.locator("#slider").get_attribute("aria-valuetext") == "not learnt"
