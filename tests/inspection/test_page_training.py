"""The page's training room in a real browser: points come, move and go; numbers stay pressable."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

import softnll as sn
from pages import address, call, until

pytestmark = pytest.mark.browser


def room(page):
    """Return the points, their classes, W and b."""
    current = page.evaluate("softnllPage.state.current")
    model = current["model"]
    return np.array(current["points"]), np.array(current["labels"]), np.array(model["W"]), np.array(model["b"])


@pytest.mark.parametrize("width", [360, 1280])
def test_points_are_added_by_a_press_on_the_plane(visit, width):
    page = visit("#room=training", width)
    page.check("input[name=new-class][value='2']")
    page.locator("#points").scroll_into_view_if_needed()
    box = page.locator("#points").bounding_box()
    page.locator("#points").click(position={"x": box["width"] * 0.2, "y": box["height"] * 0.8})
    X, y, W, b = room(page)
    assert len(X) == 16
    np.testing.assert_allclose(X[-1], [-3 + 6 * 0.2, 3 - 6 * 0.8], atol=0.03)
    assert y[-1] == 2
    assert page.locator("#standing-right").inner_text().endswith("of 16")
    loss = float(sn.linear_cross_entropy(X, W, y, bias=b))
    assert page.locator("#standing-loss").inner_text() == f"{loss:.4f}"


def test_points_are_added_and_removed_by_the_keyboard(visit):
    page = visit("#room=training")
    page.locator("#add").press("Enter")
    assert page.evaluate("document.activeElement.dataset.point") == "15"
    before = room(page)[0][15].tolist()
    page.keyboard.press("ArrowUp")
    np.testing.assert_allclose(room(page)[0][15], [before[0], before[1] + 0.1], atol=1e-9)
    page.keyboard.press("Delete")
    assert len(room(page)[0]) == 15
    assert page.locator(".mark").count() == 15
    for _ in range(14):
        page.locator("[data-point='0']").press("Delete")
    page.locator("[data-point='0']").press("Delete")  # a mean needs a point
    assert len(room(page)[0]) == 1
    assert "NaN" not in page.locator("#room-training").inner_text()


def test_no_more_points_than_a_link_holds(visit):
    points = ";".join(f"{n / 20 - 1.5},{n % 5 / 3},{n % 3}" for n in range(59))
    page = visit(f"#room=training&pts={points}")
    assert len(room(page)[0]) == 59
    page.locator("#add").press("Enter")
    assert page.locator("#add").is_disabled()
    page.locator("#points").click(position={"x": 5, "y": 5})
    assert len(room(page)[0]) == 60
    again = visit(address(page))
    np.testing.assert_array_equal(room(again)[0], room(page)[0])
    np.testing.assert_array_equal(room(again)[1], room(page)[1])
    assert len(room(visit(f"#room=training&pts={points};1,1,1;1,1,2"))[0]) == 15  # of too many, none


def test_each_point_shows_its_own_loss(visit):
    page = visit("#room=training")
    X, y, W, b = room(page)
    losses = sn.linear_cross_entropy(X, W, y, bias=b, reduction="none")
    for n in (0, 6, 14):
        assert f"loss {losses[n]:.3f}" in page.locator(f"[data-point='{n}']").get_attribute("aria-label")
    halos = [float(each.get_attribute("r")) for each in page.locator(".halo").all()]
    np.testing.assert_allclose(halos, np.minimum(60, 18 * np.sqrt(losses)), atol=0.06)
    page.locator("[data-point='6']").click()
    assert f"{losses[6]:.6f}".rstrip("0") in page.locator("#formula").inner_text()
    page.click("text=Remove this point")
    assert len(room(page)[0]) == 14
    np.testing.assert_array_equal(room(page)[0], np.delete(X, 6, axis=0))


def test_three_data_sets(visit):
    page = visit("#room=training")
    sizes = []
    for name in ("apart", "overlapping", "surrounded"):
        page.click(f"#set-{name}")
        assert page.locator(f"#set-{name}").get_attribute("aria-pressed") == "true"
        assert page.locator(".set[aria-pressed=true]").count() == 1
        X, y, W, b = room(page)
        assert abs(X).max() < 3
        sizes.append(np.bincount(y).tolist())
        loss = float(sn.linear_cross_entropy(X, W, y, bias=b))
        assert page.locator("#standing-loss").inner_text() == f"{loss:.4f}"
        assert page.locator("#standing-steps").inner_text() == "0"
    assert sizes == [[5, 5, 5], [12, 12, 12], [10, 12, 12]]
    again = visit(address(page))
    assert again.locator("#set-surrounded").get_attribute("aria-pressed") == "true"
    page.locator("[data-point='0']").press("ArrowUp")
    assert page.locator(".set[aria-pressed=true]").count() == 0


def test_the_penalty_is_half_its_weight_times_the_squares(visit):
    page = visit("#room=training")
    page.locator("#penalty").fill("0.2")
    X, y, W, b = room(page)
    loss, grads = sn.linear_cross_entropy_and_grad(X, W, y, bias=b)
    expected = float(loss) + 0.1 * (W**2).sum()
    assert page.locator("#standing-loss").inner_text() == f"{expected:.4f}"
    page.click("[data-formula=loss]")
    assert "λ" in page.locator("#formula math").first.text_content()
    points = [{"at": at, "label": int(label)} for at, label in zip(X.tolist(), y, strict=True)]
    found = call(page, "evaluate", {"W": W.tolist(), "b": b.tolist()}, points, "softmax", 0.2)
    np.testing.assert_allclose(found["dW"], grads.weight + 0.2 * W, rtol=1e-12)
    np.testing.assert_allclose(found["db"], grads.bias, rtol=1e-12)
    page.click("#step")
    np.testing.assert_allclose(room(page)[2], W - 0.5 * (grads.weight + 0.2 * W), rtol=1e-12)
    again = visit(address(page))
    assert again.locator("#standing-loss").inner_text() == page.locator("#standing-loss").inner_text()
    assert again.locator("#penalty").input_value() == "0.2"


def test_confidence_is_the_largest_probability(visit):
    page = visit("#room=training")
    rows = [*np.random.default_rng(0).normal(0, 6, (50, 3)).tolist(), [0, 800, 0], [-1e6, 1e6, 0], [1, 1, 1]]
    found = page.evaluate("(rows) => rows.map(softnllPage.mathematics.confidence)", rows)
    np.testing.assert_allclose(found, sn.softmax(np.array(rows)).max(axis=1), rtol=1e-14)


@pytest.mark.parametrize("kind", ["softmax", "hinge"])
def test_boundaries_are_drawn_for_each_pixel(visit, kind):
    page = visit(f"#room=training&loss={kind}", color_scheme="light")
    _, _, W, b = room(page)
    until(page, "document.getElementById('regions').width === 480")  # drawn in full once nothing changes
    drawn = page.evaluate("document.getElementById('regions').toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(drawn.partition(",")[2])))
    assert picture.size == (480, 480)
    assert picture.width >= page.locator(".plane").bounding_box()["width"] * 0.75
    pixels = np.asarray(picture.convert("RGB"), float)
    at = -3 + 6 * (np.arange(480) + 0.5) / 480
    a, c = np.meshgrid(at, -at)
    top = (np.stack([a, c], -1) @ W.T + b).argmax(-1)
    colours = np.array([[0, 99, 163], [184, 85, 0], [0, 120, 90]]) - 255.0
    tint = pixels - 255
    nearest = np.argmax(tint @ colours.T / np.linalg.norm(colours, axis=1), axis=-1)
    assert (nearest == top).mean() > 0.9999  # the colour of the highest score, pixel by pixel


def test_captions_are_those_of_the_loss(visit):
    page = visit("#room=training")
    assert "probable" in page.locator("#regions-hint").inner_text()
    page.check("input[value=hinge]")
    said = page.locator("#regions-hint").inner_text()
    assert "margin" in said
    assert "no probabilities" in said
    assert "probable" not in said
    assert "Hinge loss" in page.locator("#standing").inner_text()
    page.locator("[data-point='0']").click()
    words = page.locator("#formula").inner_text()
    assert "margin of 1" in words
    X, y, W, b = room(page)
    scores = X @ W.T + b
    over = np.maximum(0, scores[0] - scores[0, y[0]] + 1)
    over[y[0]] = 0
    assert f"{over.sum():.6f}".rstrip("0") in words


def test_numbers_stay_focused_and_pressable_while_training_plays(visit):
    page = visit("#room=training")
    page.click("#play")
    number = page.locator("[data-formula=w01]")
    number.focus()
    steps = "softnllPage.training().losses.length"
    now = page.evaluate(steps)
    until(page, f"{steps} > {now + 20}")
    assert page.evaluate("document.activeElement.dataset.formula") == "w01"
    page.keyboard.press("Enter")
    first = page.locator("#formula").inner_text()
    box = page.locator("[data-formula=loss]").bounding_box()
    until(page, f"document.getElementById('formula').innerText !== {first!r}")  # the formula follows
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    now = page.evaluate(steps)
    until(page, f"{steps} > {now + 10}")  # steps between the press and its end
    page.mouse.up()
    assert page.locator("[data-formula=loss]").get_attribute("aria-current") == "true"
    assert page.evaluate("softnllPage.training().playing")
    assert "mean over the points" in page.locator("#formula").inner_text()


def test_start_again_keeps_the_points(visit):
    page = visit("#room=training")
    page.locator("[data-point='0']").press("ArrowUp")
    page.click("#step")
    moved = room(page)[0]
    page.click("#reset")
    np.testing.assert_array_equal(room(page)[0], moved)
    assert room(page)[2].tolist() == [[0.5, -0.6], [-0.4, -0.5], [0.2, 0.9]]
    assert page.locator("#standing-steps").inner_text() == "0"
