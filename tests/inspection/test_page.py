"""The interactive page in a real browser: its numbers are the library's, and everything on it can be used."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

import softnll as sn
from pages import address, call, until
from softnll._cli.main import main
from softnll._inspection.calibration import reliability
from softnll._inspection.page.build import build

ROOT = Path(__file__).parents[2]
ROOMS = ("story", "scores", "training", "mistakes")
HARD = [
    [5.0, 4.0, 2.0],
    [4.0, 4.0, 1.0],
    [17.0, 0.0, 0.0],
    [0.0, 700.0, 0.0],
    [-700.0, 0.0, 1e-9],
    [1e6, 1e6, -1e6],
    [37.0, -1.0, 0.5],
    [1e-300, 0.0, -1e-300],
]


def close(ours, theirs):
    np.testing.assert_allclose(np.array(ours, float), theirs, rtol=1e-12, atol=1e-300)  # below, digits go lost


def test_the_command(tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["page", "--out", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == build()
    assert str(path) in capsys.readouterr().out
    path.write_text("older")
    assert main(["page", "--out", str(path)]) == 0  # replaced whole
    assert path.read_text(encoding="utf-8") == build()
    missing = tmp_path / "not" / "there" / "page.html"
    assert main(["page", "--out", str(missing)]) == 0  # folders are made
    assert missing.read_text(encoding="utf-8") == build()
    folder = tmp_path / "folder"
    folder.mkdir()
    assert main(["page", "--out", str(folder)]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "folder" in error


def test_the_command_opens_a_browser(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    assert main(["page", "--out", str(tmp_path / "page.html"), "--open"]) == 0
    assert asked == [(tmp_path / "page.html").as_uri()]


def test_the_policy_lets_nothing_in():
    page = build()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "og:image" not in page  # it would need an address


@pytest.mark.parametrize(
    "site", ["https://example.org/softnll", "https://example.org/softnll/", "http://localhost:80/"]
)
def test_it_links_to_the_published_documents_and_names_its_picture(site):
    page = build(site)
    base = site.rstrip("/") + "/"
    assert f'<meta property="og:image" content="{base}docs/images/page-card.png">' in page
    links = re.findall(r'<a href="([^"]*)">', page)
    assert len(links) == 4
    for link in links:
        assert link.startswith(base)
        name = link.removeprefix(f"{base}docs/").removesuffix(".html")
        assert name == "index" or list((ROOT / "docs").glob(f"{name}.*"))  # the site's pages are named like the sources
    picture = (ROOT / "docs" / "images" / "page-card.png").read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (1200, 630)
    # Only links and what sites read hold addresses: the page itself fetches nothing.
    fetched = re.sub(r'<a href="[^"]*">|<meta property="og:image" [^>]*>', "", page)
    assert base not in fetched
    assert "og:image" not in build("../")
    assert '<a href="../docs/derivation.html">' in build("../")


@pytest.mark.parametrize(
    "site", ['"><script>', "javascript:alert(1)", "https://a b", "ftp://a", "//evil", "https://x/?a#b"]
)
def test_a_site_that_is_no_address_is_refused(site, tmp_path, capsys):
    with pytest.raises(ValueError, match="site is"):
        build(site)
    out = tmp_path / "page.html"
    assert main(["page", "--out", str(out), "--site", site]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


@pytest.mark.browser
@pytest.mark.parametrize("temperature", [1.0, 0.1, 2.5, 1e-2, 1e-3, 1e-4])
def test_numbers_are_the_librarys(visit, temperature):
    page = visit()
    rows = [
        *HARD,
        *np.random.default_rng(0).normal(0, 5, (60, 3)).tolist(),
        *np.random.default_rng(1).normal(0, 2, (5, 40)).tolist(),
    ]
    asked = """([rows, tau]) => rows.map((x) => {
      const { softmax, logsumexp, jacobian, loss, gradient } = softnllPage.mathematics;
      const targets = [0, 1, 2].map((y) => [loss(x, y, tau), gradient(x, y, tau)]);
      return { softmax: softmax(x, tau), logsumexp: logsumexp(x, tau), jacobian: jacobian(x, tau), targets };
    })"""
    for row, found in zip(rows, page.evaluate(asked, [rows, temperature]), strict=True):
        x = np.array(row)
        close(found["softmax"], sn.softmax(x, temperature=temperature))
        m, log_p = x.max(), sn.log_softmax(x, temperature=temperature)
        close(found["logsumexp"], m / temperature - log_p[x.argmax()])
        if temperature >= 0.1:  # below, x / temperature differs from the row of the page by rounding
            close(found["jacobian"], sn.softmax_jacobian(x / temperature) / temperature)
        for target, (loss, gradient) in enumerate(found["targets"]):
            expected = sn.cross_entropy_and_grad(x, target, temperature=temperature)
            close(loss, expected[0])
            close(gradient, expected[1])


@pytest.mark.browser
def test_a_training_step_is_the_librarys(visit):
    page = visit()
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 2)), rng.integers(0, 3, 20)
    W, b = rng.normal(size=(3, 2)), rng.normal(size=3)
    points = [{"at": at, "label": int(label)} for at, label in zip(X.tolist(), y, strict=True)]
    model = {"W": W.tolist(), "b": b.tolist()}
    loss, grads = sn.linear_cross_entropy_and_grad(X, W, y, bias=b)
    found = call(page, "evaluate", model, points, "softmax")
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-12)
    np.testing.assert_allclose(found["dW"], grads.weight, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found["db"], grads.bias, rtol=1e-12, atol=1e-15)
    stepped = call(page, "step", model, points, 0.3, "softmax")
    np.testing.assert_allclose(stepped["W"], W - 0.3 * grads.weight, rtol=1e-12)
    np.testing.assert_allclose(stepped["b"], b - 0.3 * grads.bias, rtol=1e-12)
    hinge = call(page, "evaluate", model, points, "hinge")
    scores = X @ W.T + b
    over = np.maximum(0, scores - scores[np.arange(20), y][:, None] + 1)
    over[np.arange(20), y] = 0
    np.testing.assert_allclose(hinge["loss"], over.sum(1).mean(), rtol=1e-12)
    slope = (over > 0).astype(float)
    slope[np.arange(20), y] = -slope.sum(1)
    np.testing.assert_allclose(hinge["dW"], slope.T @ X / 20, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(hinge["db"], slope.mean(0), rtol=1e-12, atol=1e-15)


@pytest.mark.browser
def test_calibration_is_the_librarys(visit):
    rng = np.random.default_rng(3)
    scores, y = rng.normal(0, 2, (500, 3)), rng.integers(0, 3, 500)
    p = sn.softmax(scores)
    confidence, right = p.max(1), p.argmax(1) == y
    confidence[:2] = 0.5, 1.0  # a bin holds its upper edge
    found = call(visit(), "reliability", confidence.tolist(), right.tolist())
    expected = reliability(confidence, right, bins=10)
    assert [each["count"] for each in found["bins"]] == expected.counts.tolist()
    for k, each in enumerate(found["bins"]):
        if each["count"]:
            close(each["confidence"] / each["count"], expected.confidence[k])
            close(each["right"] / each["count"], expected.accuracy[k])
    close(found["ece"], expected.ece)


@pytest.mark.browser
def test_float32_as_usual_loses_what_we_keep(visit):
    page = visit()
    usual = call(page, "conventional32", [17, 0, 0], 0)
    assert (usual["loss"], usual["gradient"][0]) == (0, 0)
    assert call(page, "loss", [17, 0, 0], 0) > 0
    page.click("text=17 ahead")
    lost = page.locator("#rounding tr.lost").all_inner_texts()
    assert [each.split("\t")[0] for each in lost] == ["loss", "gradient, cat"]
    assert "8.2799·10⁻⁸" in lost[0]


BEYOND = """(width) => [...document.querySelectorAll("main [role=tabpanel]:not([hidden]) *")]
  .filter((each) => each.matches("p, td, th, input, button, svg") && each.getBoundingClientRect().right > width + 1)
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (768, 1024), (1600, 1000)])
def test_every_room_fits(visit, width, height, scheme):
    for room in ROOMS:
        page = visit(f"#room={room}&e=derivative-line.5", width, height, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BEYOND, width) == []
        assert page.locator("[role=tabpanel]:visible").get_attribute("id") == f"room-{room}"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 19, 24)"}[scheme]


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_scores_are_typed_and_numbers_follow(visit, width):
    page = visit(width=width)
    assert page.locator("#loss-0").inner_text() == "0.349"
    assert page.locator("#mean").inner_text() == "0.3624"
    page.fill("#score-0-1", "8")
    expected = float(sn.cross_entropy([5.0, 8.0, 2.0], 0))
    assert page.locator("#loss-0").inner_text() == f"{expected:.3f}"
    assert page.locator("#p-0-1").inner_text() == f"{sn.softmax([5.0, 8.0, 2.0])[1]:.3f}"
    page.fill("#score-0-1", "")
    assert page.locator("#score-0-1").get_attribute("aria-invalid") == "true"
    assert page.locator("#loss-0").inner_text() == f"{expected:.3f}"  # the last number stands
    page.select_option("#truth-0", "1")
    assert page.locator("#loss-0").inner_text() == f"{float(sn.cross_entropy([5.0, 8.0, 2.0], 1)):.3f}"


@pytest.mark.browser
def test_the_temperature_moves_everything(visit):
    page = visit()
    page.locator("#temperature").fill("0.5")
    tau = float(page.evaluate("softnllPage.state.current.temperature"))
    assert tau == pytest.approx(10**0.5, rel=0.01)
    assert page.locator("#p-0-0").inner_text() == f"{sn.softmax([5.0, 4.0, 2.0], temperature=tau)[0]:.3f}"
    until(page, "location.hash.includes('t=')")


@pytest.mark.browser
def test_a_number_tells_its_formula(visit):
    page = visit()
    formula = page.locator("#formula")
    page.click("#p-1-0")
    assert "0.017943" in formula.inner_text()
    assert page.locator("#card-1").get_attribute("class") == "card chosen"
    page.click("#j-0-2")
    assert "Off the diagonal" in formula.inner_text()
    expected = sn.softmax_jacobian(np.array([4.0, 2.0, 8.0]))[0, 2]
    assert f"{abs(expected):.6f}".rstrip("0") in formula.inner_text()
    page.locator("[data-entry='2']").press("Enter")
    assert "less 1" in formula.inner_text()
    assert formula.locator("math").count() >= 2
    assert page.locator("[aria-current=true]").count() == 1
    page.click("#mean")
    assert "0.362443" in formula.inner_text()


@pytest.mark.browser
def test_examples(visit):
    page = visit()
    page.click("text=A tie")
    assert "tie" in page.locator("#detail-title").inner_text()
    page.click("text=Confidently wrong")
    assert float(page.locator("#loss-0").inner_text()) > 7
    page.click("text=The three images")
    assert page.locator("#mean").inner_text() == "0.3624"


@pytest.mark.browser
def test_the_address_brings_everything_back(visit):
    page = visit()
    page.fill("#score-2-0", "-3.5")
    page.select_option("#truth-2", "2")
    page.locator("#temperature").fill("0.3")
    page.click("#j-0-2")
    again = visit(address(page))
    for what in ("#p-2-0", "#loss-2", "#mean", "#detail-title", "#formula"):
        assert again.locator(what).inner_text() == page.locator(what).inner_text()
    page.click("#tab-training")
    assert visit(address(page)).locator("#room-training").is_visible()


@pytest.mark.browser
def test_the_address_brings_the_training_back(visit):
    page = visit("#room=training")
    assert address(page) == "#room=training"
    page.locator("[data-point='3']").press("ArrowUp")
    page.locator("#rate").fill("-1")
    page.check("input[value=hinge]")
    page.click("#step")
    page.click("#step")
    link = address(page)
    again = visit(link)
    for what in ("#standing-loss", "#standing-right", "#weights table"):
        assert again.locator(what).inner_text() == page.locator(what).inner_text()
    assert again.locator("[data-point='3']").get_attribute("aria-label") == page.locator(
        "[data-point='3']"
    ).get_attribute("aria-label")
    assert again.locator("input[value=hinge]").is_checked()
    assert again.locator("#rate").input_value() == "-1"
    assert again.evaluate("softnllPage.training().model") == page.evaluate("softnllPage.training().model")
    other = visit("#room=training")
    other.evaluate("link => { location.hash = link }", link)
    until(other, "document.querySelector('input[value=hinge]').checked")
    assert other.locator("#weights table").inner_text() == page.locator("#weights table").inner_text()


@pytest.mark.browser
def test_a_pending_write_does_not_replace_an_address_that_is_given(visit):
    page = visit("#room=training")
    page.evaluate(
        """() => {
            softnllPage.state.note({ room: "training" });  // the address is written soon
            const until = performance.now() + 1000;
            while (performance.now() < until);             // the write is due, and comes first
            location.hash = "#room=training&loss=hinge";
        }"""
    )
    until(page, "document.querySelector('input[value=hinge]').checked")


@pytest.mark.browser
def test_the_address_brings_the_experiments_back(visit):
    page = visit("#room=mistakes")
    page.locator("#twice-classes").fill("3")
    page.locator("#calibration-tau").fill("0.5")
    again = visit(address(page))
    for what in ("#twice-outcome", "#calibration-outcome"):
        assert again.locator(what).inner_text() == page.locator(what).inner_text()
    assert visit("#room=mistakes&e=twice-classes.1e9").locator("#twice-classes").input_value() == "100"


@pytest.mark.browser
@pytest.mark.parametrize(
    "bad",
    [
        "#x=1,2;3",
        "#x=a,b,c;1,2,3;1,2,3",
        "#x=,,;,,;,,",
        "#x= , , ; , , ; , , ",
        "#x=0x10,1,1;1,1,1;1,1,1",
        "#x=Infinity,0,0;0,0,0;0,0,0",
        "#y=0,1,7",
        "#y=,,",
        "#t=1e9",
        "#t=",
        "#room=<script>",
        "#row=9&t=NaN",
        "#f=constructor.0&e=__proto__.1,<b>.2",
        "#f=p.7",
        "#pts=1,2&W=1,2,3&loss=<i>&rate=0",
    ],
)
def test_a_bad_address_changes_nothing(visit, bad):
    page = visit(bad)
    assert page.evaluate("softnllPage.state.current") == page.evaluate("softnllPage.state.START")
    assert page.locator("#mean").inner_text() == "0.3624"


@pytest.mark.browser
def test_an_address_is_held_to_what_can_be_typed(visit):
    page = visit("#room=scores&x=1e308,-1e308,0;4,2,8;4,4,1")
    assert page.evaluate("softnllPage.state.current.scores[0]") == [1e6, -1e6, 0]
    assert "NaN" not in page.locator("main").inner_text()
    assert "not a number" not in page.locator("main").inner_text()


@pytest.mark.browser
def test_the_address_is_written_seldom(visit):
    """Browsers throttle who writes it at each move of a slider."""
    page = visit()
    page.evaluate(
        """() => {
          const first = history.replaceState.bind(history);
          window.written = 0;
          history.replaceState = (...given) => { window.written += 1; first(...given); };
        }"""
    )
    page.evaluate(
        """() => {
          const slider = document.getElementById("temperature");
          for (let k = 0; k < 30; k += 1) {
            slider.value = k / 100;
            slider.dispatchEvent(new Event("input", { bubbles: true }));
          }
        }"""
    )
    assert page.evaluate("softnllPage.state.current.temperature") > 1.9
    until(page, "softnllPage.state.settled()")
    assert 1 <= page.evaluate("written") <= 8


@pytest.mark.browser
def test_17_ahead_is_never_shown_as_certain(visit):
    page = visit()
    page.click("text=17 ahead")
    formula = page.locator("#formula")
    for button in ("#p-0-0", "#loss-0", "#j-0-0", "#j-0-1", "[data-entry='0']"):
        page.keyboard.press("Escape")
        page.click(button)
        text = formula.inner_text().replace("\n", "")
        assert "8.2799·10⁻⁸" in text or "4.1399·10⁻⁸" in text
        assert "ln1=" not in text.replace(" ", "").replace("\u2009", "")
        assert "1·(1\N{MINUS SIGN}1)" not in text
    assert "1 \N{MINUS SIGN} 8.2799·10⁻⁸" in page.locator("#p-0-0").get_attribute("aria-label")


@pytest.mark.browser
@pytest.mark.parametrize("score", ["800", "-800", "1000000"])
def test_large_scores_have_finite_formulas(visit, score):
    page = visit()
    page.fill("#score-0-0", score)
    for button in ("#p-0-0", "#p-0-1", "#loss-0", "#j-0-0", "[data-entry='1']"):
        page.keyboard.press("Escape")  # the panel may lie over the next
        page.click(button)
        assert "∞" not in page.locator("#formula").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_numbers_of_every_room_tell_their_formulas(visit, width):
    page = visit("#room=training", width)
    page.click("[data-formula='w01']")
    words = page.locator("#formula")
    assert words.locator("math").count() == 2
    assert words.locator("math").last.text_content().count("wA2") == 2  # a symbol used twice is there twice
    found = page.evaluate(
        """(() => {
          const { current } = softnllPage.state;
          const at = current.points.map((at, n) => ({ at, label: current.labels[n] }));
          return softnllPage.mathematics.evaluate(current.model, at).dW[0][1];
        })()"""
    )
    assert f"{abs(found):.6f}".rstrip("0") in words.inner_text()
    assert (
        f"∂ {found:.3f}".replace("-", "\N{MINUS SIGN}") in page.locator("[data-formula='w01']").inner_text()
    )  # the gradient itself
    page.keyboard.press("Escape")
    page.click("[data-formula='loss']")
    assert "15" in words.inner_text()
    page.click("#step")  # and it follows
    assert page.locator("#room-training [aria-current=true]").count() == 1
    page.click("#tab-mistakes")
    for experiment in page.locator(".experiment").all():
        buttons = experiment.locator(".outcome td button").all()
        assert buttons
        for button in buttons:
            page.keyboard.press("Escape")
            button.click()
            assert words.inner_text().strip()
            assert button.get_attribute("aria-current") == "true"
            assert page.locator("[aria-current=true]").count() == 1


@pytest.mark.browser
def test_marks_are_large_enough_to_touch_and_the_plane_scrolls(visit):
    page = visit("#room=training", 360, 740, has_touch=True)
    box = page.locator("[data-point='0'] .hit").bounding_box()
    assert min(box["width"], box["height"]) >= 24
    action = "each => getComputedStyle(each).touchAction"
    assert page.locator(".plane").evaluate(action) == "auto"
    assert page.locator("[data-point='0']").evaluate(action) == "none"


@pytest.mark.browser
def test_the_plane_follows_the_colour_scheme(visit):
    page = visit("#room=training", color_scheme="light")
    picture = "document.getElementById('regions').toDataURL()"
    until(page, "document.getElementById('regions').width === 480")  # drawn in full: only the colours change it now
    light = page.evaluate(picture)
    page.emulate_media(color_scheme="dark")
    until(page, f"{picture} !== '{light}'")


@pytest.mark.browser
def test_training_lowers_the_loss(visit):
    page = visit("#room=training")
    standing = "softnllPage.training()"
    first = page.evaluate(standing)["losses"]
    page.click("#step")
    assert len(page.evaluate(standing)["losses"]) == 2
    page.click("#play")
    until(page, f"{standing}.losses.length > 60")
    page.click("#play")
    after = page.evaluate(standing)
    assert not after["playing"]
    assert after["losses"][-1] < first[0] / 4
    assert page.locator("#standing-right").inner_text() == "15 of 15"
    assert float(page.locator("#standing-loss").inner_text()) == pytest.approx(after["losses"][-1], abs=1e-4)
    page.check("input[value=hinge]")
    page.click("#step")
    page.click("#reset")
    assert page.evaluate(standing)["losses"] != first  # of the other loss
    page.click("#play")
    page.click("#tab-scores")
    assert not page.evaluate(standing)["playing"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
def test_points_are_dragged_and_nudged(visit, width):
    page = visit("#room=training", width)
    point = page.locator("[data-point='0']")
    before, loss = point.get_attribute("aria-label"), page.locator("#standing-loss").inner_text()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 80, box["y"] + 70, steps=4)
    page.mouse.up()
    assert point.get_attribute("aria-label") != before
    assert page.locator("#standing-loss").inner_text() != loss
    dragged = point.get_attribute("aria-label")
    point.press("ArrowLeft")
    assert point.get_attribute("aria-label") != dragged


@pytest.mark.browser
def test_reduced_motion_trains_in_strides(visit):
    page = visit("#room=training", reduced_motion="reduce")
    page.click("#play")
    until(page, "softnllPage.training().losses.length > 20")
    page.click("#play")
    assert (len(page.evaluate("softnllPage.training()")["losses"]) - 1) % 20 == 0


@pytest.mark.browser
def test_experiments_answer(visit):
    page = visit("#room=mistakes")
    assert page.locator(".experiment").count() == 6
    page.locator("#twice-classes").fill("3")
    page.locator("#twice-gap").fill("20")
    cells = page.locator("#twice-outcome tbody td").all_inner_texts()
    assert cells[2] == "0.5514"  # ln(e + C − 1) − 1
    assert float(cells[1]) == pytest.approx(0.5514, abs=1e-3)
    page.locator("#rounding-gap").fill("16")
    assert "∞" in page.locator("#rounding-outcome").inner_text()
    page.locator("#calibration-tau").fill("0")
    calibrated = page.locator("#calibration-outcome tbody td").all_inner_texts()
    page.locator("#calibration-tau").fill("-0.7")
    sharp = page.locator("#calibration-outcome tbody td").all_inner_texts()
    assert calibrated[0] == sharp[0]  # accuracy
    assert float(calibrated[2]) < float(sharp[2])
    assert float(calibrated[3]) < 0.04 < float(sharp[3])
    sums = page.locator("#off-diagonal-outcome tbody tr:last-child td").all_inner_texts()
    assert sums[0] == "0.0000"
    assert sums[1] != "0.0000"


@pytest.mark.browser
def test_the_keyboard_is_enough(visit):
    page = visit()
    page.focus("#tab-scores")
    page.keyboard.press("ArrowRight")
    assert page.locator("#room-training").is_visible()
    page.keyboard.press("End")
    assert page.locator("#room-mistakes").is_visible()
    page.keyboard.press("Home")
    assert page.locator("#room-story").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-story"
    page.keyboard.press("ArrowRight")
    page.focus("#temperature")
    page.keyboard.press("ArrowRight")
    assert float(page.evaluate("softnllPage.state.current.temperature")) > 1
    assert page.locator("#temperature").get_attribute("aria-valuetext") == "1.02"


@pytest.mark.browser
@pytest.mark.parametrize("room", ROOMS)
def test_everything_has_a_name(visit, room):
    page = visit(f"#room={room}")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("main [role=tabpanel]:not([hidden]) *")]
        .filter(each => each.matches("button, input, select, [role=button], [role=img]"))
        .filter(each => !(each.getAttribute("aria-label") || each.labels?.length || each.textContent.trim()))
        .map(each => each.outerHTML)"""
    )
    assert nameless == []


CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const light = (text) => {  // of any colour that CSS knows, color-mix as well
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const behind = (each) => {
    for (let at = each; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/rgba\\(.*, 0\\)/.test(colour) && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const bad = [];
  for (const each of document.querySelectorAll("main [role=tabpanel]:not([hidden]) *, header *, nav *")) {
    const says = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says || !each.getClientRects().length) continue;
    const { fill, color } = getComputedStyle(each);
    if (ratio(each.closest("svg") ? fill : color, behind(each)) < 4.5) bad.push(each.outerHTML.slice(0, 90));
  }
  for (const each of document.querySelectorAll("input[type=number], select")) {
    if (!each.getClientRects().length) continue;
    const edge = getComputedStyle(each).borderTopColor;
    if (ratio(edge, behind(each.parentElement)) < 3) bad.push(each.outerHTML.slice(0, 90));
  }
  return bad;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("room", ROOMS)
def test_text_can_be_read(visit, room, scheme):
    assert visit(f"#room={room}", color_scheme=scheme).evaluate(CONTRAST) == []
