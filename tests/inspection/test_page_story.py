"""The page's story in a real browser: seven steps with the same live numbers, and formulas beside the numbers."""

from __future__ import annotations

import numpy as np
import pytest

import softnll as sn
from cases import SCORES, TRUE
from pages import address, call, until

pytestmark = pytest.mark.browser
STEPS = ["Scores", "Why exp", "Normalise", "\N{MINUS SIGN}ln p", "Three images", "The derivative", "Learning"]


def numbers(page):
    """Return the chosen image's scores, its true class, and what the library computes from them."""
    current = page.evaluate("softnllPage.state.current")
    x, y = np.array(current["scores"][current["row"]]), current["targets"][current["row"]]
    return x, y, sn.softmax(x), *sn.cross_entropy_and_grad(x, y)


def shown(page, where):
    """Return the number that an element shows."""
    return float(page.locator(where).inner_text().replace("\N{MINUS SIGN}", "-"))


def test_the_story_comes_first(visit):
    page = visit("")
    titles = page.locator(".chapter h3").all_inner_texts()
    assert [each.split("\n")[-1].strip() for each in titles] == STEPS
    assert page.locator("#room-story").is_visible()
    assert page.locator("#to-1").get_attribute("aria-current") == "step"


def test_steps_are_clicked_through(visit):
    page = visit("")
    for n in range(1, 7):
        page.locator(f"#next-{n}").press("Enter")  # by the keyboard
        assert page.evaluate("document.activeElement.id") == f"story-title-{n + 1}"
        until(page, f"document.getElementById('to-{n + 1}').getAttribute('aria-current') === 'step'")
        top = f"document.getElementById('story-{n + 1}').getBoundingClientRect().top"
        until(page, f"{top} > -2 && {top} < innerHeight / 2")
    page.click("#to-3")
    again = visit(address(page))
    assert again.locator("#to-3").get_attribute("aria-current") == "step"
    until(again, "document.getElementById('story-3').getBoundingClientRect().top < innerHeight / 2")


def test_steps_are_scrolled_through(visit):
    page = visit("")
    for n in (2, 5, 7, 4):
        page.evaluate(f"document.getElementById('story-{n}').scrollIntoView({{ behavior: 'instant' }})")
        until(page, f"document.getElementById('to-{n}').getAttribute('aria-current') === 'step'")
    assert page.locator(".progress [aria-current]").count() == 1
    assert page.evaluate("softnllPage.state.current.step") == 3


def test_every_step_shows_the_librarys_numbers_of_the_dragged_scores(visit):
    page = visit("")
    page.click("#story-image-2")
    page.locator("#story-f-0").fill("-2.5")
    page.locator("#why-f-1").fill("1.5")
    page.locator("#d-f-2").press("ArrowRight")
    x, y, p, loss, gradient = numbers(page)
    assert x.tolist() == [-2.5, 1.5, 1.1]
    assert y == 1
    for c in range(3):
        assert page.locator(f"#share-p-{c}").inner_text() == f"{p[c]:.3f}"
        assert shown(page, f"#share-e-{c}") == pytest.approx(np.exp(x[c]), abs=0.006)
        assert page.locator(f"#d-f-{c}").input_value() == str(x[c])
    for where in ("#story-p", "#three-p-2"):
        assert page.locator(where).inner_text() == f"{p[1]:.3f}"
    for where in ("#story-loss", "#three-loss-2"):
        assert page.locator(where).inner_text() == f"{loss:.3f}"
    for _ in range(4):
        page.click("#next-line")
    assert page.locator("#next-line").is_disabled()
    J = sn.softmax_jacobian(x)
    for k in range(3):
        assert shown(page, f"#d-lp-{k}") == pytest.approx(-1 / p[y] if k == y else 0, abs=6e-4)
        assert shown(page, f"#d-row-{k}") == pytest.approx(J[y, k], abs=6e-4)
        assert shown(page, f"#d-product-{k}") == pytest.approx(gradient[k], abs=6e-5)
        assert shown(page, f"#d-g-{k}") == pytest.approx(gradient[k], abs=6e-5)
        for i in range(3):
            assert shown(page, f"#d-j-{i}-{k}") == pytest.approx(J[i, k], abs=6e-4)
    assert page.locator("#d-sum").inner_text() == "0.0000"
    assert shown(page, "#d-alone") == pytest.approx(gradient[y], abs=6e-5)  # the diagonal alone does not sum to 0
    page.click("#tab-scores")
    assert page.locator("#loss-2").inner_text() == f"{loss:.3f}"  # the free play goes on from the same numbers


@pytest.mark.parametrize("room", ["story", "scores"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_point_is_dragged_along_the_curve(visit, room, width):
    page = visit(f"#room={room}", width)
    point = page.locator("#story-curve-point" if room == "story" else "#curve-point")
    point.scroll_into_view_if_needed()
    box = point.locator(".point").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 15, steps=5)
    page.mouse.up()
    scores, target, p, loss, _ = numbers(page)
    assert p[target] < 0.69
    assert scores[1:].tolist() == [4, 2]  # the others stay
    assert float(point.get_attribute("aria-valuenow")) == pytest.approx(p[target], rel=1e-12)
    after = point.locator(".point").bounding_box()
    assert after["x"] + after["width"] / 2 == pytest.approx(x - 60, abs=14)  # it follows the pointer, on the curve
    assert page.locator("#story-loss" if room == "story" else "#loss-0").inner_text() == f"{loss:.3f}"
    point.press("ArrowRight")
    assert numbers(page)[2][target] == pytest.approx(p[target] + 0.01, abs=1e-4)


def test_a_score_is_found_for_each_probability(visit):
    page = visit("")
    for p in (1e-300, 1e-9, 0.25, 0.999999):
        for tau in (1, 0.5):
            found = call(page, "scoreFor", [5, 4, 2], 1, p, tau)
            assert sn.softmax([5, found, 2], temperature=tau)[1] == pytest.approx(p, rel=1e-12)


def test_only_the_exponential_has_no_fault(visit):
    page = visit("")
    faults = lambda: [page.locator(f"#why-fault-{k}").inner_text() for k in range(3)]  # noqa: E731
    assert faults() == ["none", "none", "none"]
    page.click("#why-three")
    assert faults() == ["moved", "moved", "none"]
    page.click("#why-back")
    page.click("#why-negative")
    assert faults() == ["negative", "wrong order", "none"]
    assert page.evaluate("softnllPage.state.current.scores[0]") == [5, 4, -6]
    for c in range(3):
        page.locator(f"#story-f-{c}").fill("0")
    assert faults() == ["sum is 0", "sum is 0", "none"]


def test_an_exponential_beyond_all_numbers_is_explained(visit):
    page = visit("#x=800,4,2;4,2,8;4,4,1")
    page.click("#share-e-0")
    assert "Too large for a number" in page.locator("#formula").inner_text()
    assert page.locator("#share-p-0").inner_text() == "1.000"
    assert "NaN" not in page.locator("#room-story").inner_html()


def test_learning_goes_against_the_librarys_gradient(visit):
    page = visit("#step=7")
    page.locator("#learn-rate").fill("2")
    page.click("#learn-step")
    _, gradient = sn.cross_entropy_and_grad(SCORES, TRUE, reduction="none")
    after = page.evaluate("softnllPage.state.current.scores")
    np.testing.assert_allclose(after, np.array(SCORES) - 2 * gradient, rtol=1e-12)
    mean = float(sn.cross_entropy(np.array(after), TRUE))
    assert page.locator("#learn-mean").inner_text() == f"{mean:.4f}"
    page.click("#learn-play")
    until(page, "Number(document.getElementById('learn-mean').textContent) < 0.05")
    page.click("#tab-scores")
    stopped = page.evaluate("softnllPage.state.current.scores")
    assert page.locator("#learn-play").text_content() == "Play"
    assert page.evaluate("softnllPage.state.current.scores") == stopped
    page.click("#tab-story")
    page.click("#learn-reset")
    assert page.locator("#learn-mean").inner_text() == "0.3624"


PLACE = """(id) => {
  const number = document.querySelector(id).getBoundingClientRect();
  const panel = document.getElementById("panel").getBoundingClientRect();
  const gap = (a, b, c, d) => Math.max(0, c - b, a - d);
  const { scrollWidth, clientWidth } = document.getElementById("formula");
  return {
    cut: scrollWidth - clientWidth,
    across: gap(panel.left, panel.right, number.left, number.right),
    down: gap(panel.top, panel.bottom, number.top, number.bottom),
    inside: panel.left >= 0 && panel.right <= innerWidth && panel.top > -1 && panel.bottom < innerHeight + 1,
  };
}"""
PRESSED = {
    "story": ("#share-p-0", "#story-loss", "#three-mean"),
    "scores": ("#p-0-0", "#loss-2", "#j-1-2", "[data-entry='1']", "#mean"),
    "training": ("[data-formula=loss]", "[data-formula=w21]", "[data-point='7']"),
    "mistakes": ("#twice-outcome tr:nth-child(3) button", "#calibration-outcome button"),
}


@pytest.mark.parametrize("room", list(PRESSED))
@pytest.mark.parametrize("width", [360, 768, 1600])
def test_formulas_are_beside_the_pressed_number(visit, room, width):
    page = visit(f"#room={room}", width, 1000 if width > 500 else 740)
    for where in PRESSED[room]:
        page.locator(where).first.click()
        assert page.locator("#formula math").count() >= 1
        place = page.evaluate(PLACE, where)
        assert max(place["across"], place["down"]) == pytest.approx(8, abs=1)
        assert place["inside"]
        assert place["cut"] == 0  # the widest formula has its place
        page.keyboard.press("Escape")
        assert page.locator("#panel").is_hidden()
        assert page.locator("[aria-current=true]").count() == 0


def test_the_panel_closes_by_its_button_and_by_the_number(visit):
    page = visit()
    for _ in range(2):
        page.click("#p-0-1")
        assert page.locator("#panel").is_visible()
        page.click("#p-0-1")
        assert page.locator("#panel").is_hidden()
    page.locator("#p-0-1").press("Enter")
    page.locator("#panel .close").press("Enter")
    assert page.locator("#panel").is_hidden()
    assert page.evaluate("document.activeElement.id") == "p-0-1"
    page.click("#p-1-1")
    page.click("#p-2-1")  # of another image
    assert page.locator("#panel").is_visible()
    page.click("#tab-training")
    assert page.locator("#panel").is_hidden()


def test_a_press_beside_the_numbers_closes_the_panel_and_a_slider_does_not(visit):
    page = visit()
    page.click("#p-0-1")
    page.locator("#temperature").click()
    assert page.locator("#panel").is_visible()
    page.click("footer")
    assert page.locator("#panel").is_hidden()


def test_the_panel_follows_the_chosen_image(visit):
    page = visit()
    page.click("#p-0-1")
    page.click("#picture-1")
    assert page.locator("#p-1-1").get_attribute("aria-current") == "true"
    assert f"{sn.softmax([4.0, 2.0, 8.0])[1]:.6f}" in page.locator("#formula").inner_text()


def test_letters_are_the_articles(visit):
    """Scores are f, in every formula of every room; x is a place in the plane."""
    page = visit()
    for where in ("#p-0-0", "#loss-0", "#j-0-1", "[data-entry='0']"):
        page.keyboard.press("Escape")
        page.locator(where).click()
        letters = page.locator("#formula mi").all_text_contents()
        assert "f" in letters or where == "#p-0-0"
        assert not {"x", "s", "z"} & set(letters)
    assert (
        "x" not in "".join(page.locator("#room-scores figcaption, #arrows text, .heat th").all_text_contents()).split()
    )
    page.click("#tab-mistakes")
    for button in page.locator(".experiment .outcome td button").all():
        page.keyboard.press("Escape")
        button.click()
        assert not {"x", "s", "z"} & set(page.locator("#formula mi").all_text_contents())
