"""The page of `litevit app` in a real Chromium: every view, wrong files, narrow and wide, keyboard alone, axe-core.

Needs Playwright and a Chromium (Debian: apt-get install chromium); `-m slow` runs it.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import Visit, picture_file
from made import add_rows
from PIL import Image

import litevit
from litevit.explain import attention_maps, merging_offsets, sampling_chain

pytestmark = pytest.mark.slow
RUN = "run:digits"


def test_classes_as_bars_and_beside_them_another_model(visit: Visit) -> None:
    page = visit.page
    page.wait_for_selector("text=Take a sample above")
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    assert page.locator(".guesses li").count() == 10
    total = sum(float(text.split()[0]) for text in page.locator(".guesses .number").all_inner_texts())
    assert total == pytest.approx(100, abs=1)
    assert page.locator("#random").is_hidden()
    page.select_option("#second", "semantic_fpn_lit_ti")
    page.wait_for_selector(".panel[data-kind=map]")
    assert page.locator(".panel").count() == 2
    assert page.locator(".panel >> nth=1 >> text=random weights").count()
    legend = page.locator(".legend input")
    before = page.locator(".panel >> nth=1 >> canvas").get_attribute("aria-label")
    legend.first.uncheck()
    assert page.locator(".panel >> nth=1 >> canvas").get_attribute("aria-label") != before
    page.select_option("#model", "litv2_s")
    page.wait_for_selector("#random:visible")


def test_the_threshold_is_answered_in_the_browser(visit: Visit) -> None:
    page = visit.page
    page.select_option("#model", "retinanet_lit_ti")  # random: many objects of little score
    visit.sample(2)
    page.wait_for_selector(".panel[data-kind=objects]", timeout=120_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    shown = []
    for value in ("0", "1"):
        page.locator("#threshold").evaluate(
            "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
        )
        shown.append(int(page.get_attribute(".panel", "data-shown")))
    assert shown[0] >= shown[1] == 0
    assert page.inner_text("#threshold-value") == "1.00"
    assert not asked


def test_a_click_is_answered_from_the_arrays(visit: Visit, folder: Path) -> None:
    page = visit.page
    page.set_input_files("#file", picture_file())
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look()
    page.select_option("#branch", "lo")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    box = page.locator("#canvas").bounding_box()
    H = W = 4  # 64 pixels at stride 16
    run = litevit.run(folder)
    image = litevit.preprocessing(run)(Image.open(io.BytesIO(picture_file()["buffer"])))
    exact = attention_maps(run.model(), image, stage=3, block=1)["lo"].probabilities
    drawn = []
    for row, column in ((0, 0), (1, 2), (3, 3)):
        page.mouse.click(box["x"] + (column + 0.5) / W * box["width"], box["y"] + (row + 0.5) / H * box["height"])
        assert visit.cell() == row * W + column
        best = exact[:, row * W + column].mean(0)
        said = page.inner_text("#readout")
        assert f"cell at row {row}, column {column} of 4 × 4" in said
        k = int(best.argmax())
        where, share = said.split("looks most at ")[1].split(" (")
        assert where == f"row {k // 2}, column {k % 2} of 2 × 2"
        assert float(share.split()[0]) == pytest.approx(100 * float(best[k]), abs=0.25)  # bytes
        drawn.append(float(page.get_attribute("#canvas", "data-drawn")))
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 5)
    assert visit.cell() == 3
    page.mouse.up()
    page.select_option("#head", "1")
    assert page.locator("#heads button[aria-pressed=true]").inner_text() == "1"
    assert not asked
    assert "--stage 3 --block 1 --head 1 --pixel 56 8" in page.inner_text("#command")
    assert min(drawn) < 30  # milliseconds


def test_the_chain_of_offsets_is_the_library_s(visit: Visit, folder: Path) -> None:
    page = visit.page
    page.set_input_files("#file", picture_file())
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("offsets")
    page.wait_for_selector("#canvas[data-points]")
    run = litevit.run(folder)
    model = run.model()
    image = litevit.preprocessing(run)(Image.open(io.BytesIO(picture_file()["buffer"])))
    with torch.no_grad():
        offsets = [o[0] for o in merging_offsets(model.backbone, image[None])]
    points = page.evaluate(
        """async (levels) => {
            const { chain } = await import("./maths.js");
            const typed = levels.map(({ values, shape }) => Object.assign(Float32Array.from(values), { shape }));
            const [h, w] = typed[2].shape, all = [];
            for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) all.push(chain(typed, r, c));
            return all;
        }""",
        [{"values": o.flatten().tolist(), "shape": list(o.shape)} for o in offsets],
    )
    assert sum(map(len, points)) > 16
    for n, found in enumerate(points):
        np.testing.assert_allclose(
            np.reshape(found, (-1, 2)), sampling_chain(offsets, row=n // 2, column=n % 2), atol=1e-5
        )
    count = len(sampling_chain(offsets, row=1, column=1))
    assert f"{count} sampling points" in page.inner_text("#readout")
    page.select_option("#offset-kind", "all")
    assert page.inner_text("#readout").startswith("All 4 cells of the last map")


def test_features_frequencies_and_what_can_be_kept(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.sample(1)
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("features")
    page.wait_for_selector("text=likeness to all cells")
    page.select_option("#feature-kind", "pca")
    assert "channels" in page.inner_text("#readout")
    visit.look("frequency")
    page.wait_for_selector(".spectra canvas")
    assert page.locator(".spectra canvas").count() == 3
    assert page.locator("#depth polyline").count() == 5
    for button, ending in (("#save-picture", ".png"), ("#save-arrays", ".npz"), ("#save-source", ".png")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename.endswith(ending)
        target = tmp_path / download.value.suggested_filename
        download.value.save_as(target)
        if ending == ".npz":
            with np.load(target) as file:
                assert set(file) == {"3.1_hi", "3.1_lo", "3.1_full"}
        else:
            assert min(Image.open(target).size) >= 240
    assert page.inner_text("#command").startswith("litevit explain frequency scene-2.png --weights ")


def test_what_cannot_be_shown_is_said(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    page.select_option("#model", "pvt_s")
    visit.look("offsets")
    page.wait_for_selector("#look-note:visible")
    assert "no deformable token merging" in page.inner_text("#look-note")
    page.select_option("#model", "pvt_s_msa_remove_1234")
    page.check("input[value=attention]", force=True)
    page.wait_for_selector("text=has no attention in any block")
    page.select_option("#model", RUN)
    page.wait_for_selector("#look-note", state="hidden")
    page.wait_for_selector("text=looks most at")


def test_a_view_that_is_chosen_while_a_model_opens_shows_that_model(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("offsets")
    page.wait_for_selector("#canvas[data-points]")
    held: list[Any] = []
    page.route("**/api/describe", lambda route: held.append(route))
    page.select_option("#model", "lvt")
    page.wait_for_timeout(200)
    page.check("input[value=attention]", force=True)
    held.pop().continue_()
    page.wait_for_selector("text=Attention looks most at")
    page.select_option("#stage", "1")  # which the model before has no attention in
    page.wait_for_selector("text=CSA looks most at")


@pytest.mark.parametrize("kind", ["text", "huge"])
def test_wrong_files_become_a_note_and_nothing_is_lost(visit: Visit, kind: str) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    before = page.inner_text(".guesses")
    content, message = b"no picture", "wrong.png is not an image that can be read"
    if kind == "huge":
        file = io.BytesIO()
        Image.new("1", (10_000, 10_000)).save(file, "PNG")
        content, message = file.getvalue(), "100 million pixels (10000 x 10000)"
    page.set_input_files("#file", {"name": "wrong.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector(".note")
    assert message in page.inner_text(".note")
    assert page.inner_text(".guesses") == before
    page.click(".note button")
    assert page.locator(".note").count() == 0


def test_a_picture_that_was_forgotten_is_sent_again(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    gone = [True]  # what the server answers once it has forgotten the session

    def forget(route: Any) -> None:
        if gone:
            gone.pop()
            route.fulfill(status=410, json={"error": "forgotten"})
        else:
            route.continue_()

    page.route("**/api/look/seen", forget)
    visit.look()
    page.wait_for_selector("text=looks most at")
    assert page.locator(".note").count() == 0


def test_a_run_is_followed_live(visit: Visit, folder: Path) -> None:
    page = visit.page
    page.click("#tab-run")
    page.wait_for_selector(".tiles")
    assert page.inner_text("#run-state") == "training"
    assert page.locator(".chart svg").count() == 3  # loss, top1, learning rate
    step = int(page.inner_text(".tile b >> nth=0"))
    add_rows(folder, [step + 1])
    page.wait_for_selector(f".tile b:text-is('{step + 1}')", timeout=10_000)
    page.click("text=Examine the held-out images")
    page.wait_for_selector(".confusion", timeout=60_000)
    assert "of 360 right" in page.inner_text("#run-body")
    assert page.locator(".mistakes figure").count() > 0


def test_keyboard_alone(visit: Visit) -> None:
    page = visit.page

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.locator(selector).evaluate("(e) => e === document.activeElement"):
                outline = page.locator(selector).evaluate("(e) => getComputedStyle(e).outlineStyle")
                assert outline != "none", f"the focus on {selector} is not visible"
                return
        pytest.fail(f"Tab does not reach {selector}")

    tab_to("#samples button >> nth=4")
    page.keyboard.press("Enter")
    page.wait_for_selector(".panel[data-kind=classes]")
    page.locator("body").evaluate("() => document.activeElement.blur()")
    tab_to("#tab-predict")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=looks most at")
    assert page.locator("#tab-look").evaluate("(e) => e === document.activeElement")
    tab_to("#canvas")
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("ArrowUp")
    assert visit.cell() == 0
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert visit.cell() == 5
    page.keyboard.press("End")
    assert visit.cell() == 7
    page.keyboard.press("Shift+ArrowLeft")
    assert visit.cell() == 4
    page.keyboard.press("]")
    assert page.locator("#head").input_value() == "0"
    page.keyboard.press("+")
    assert page.inner_text("#zoom-value") == "150 %"
    block = page.locator("#block").input_value()
    page.keyboard.press(",")
    page.wait_for_selector("#frame:not([aria-busy])")
    assert page.locator("#block").input_value() != block
    tab_to("#stage")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=of 2 × 2. ")  # the map of stage 4
    tab_to("#save-picture")


@pytest.mark.parametrize("width", [360, 3840])
def test_narrow_and_wide(browser: Any, address: str, width: int) -> None:
    visit = Visit(browser, address, viewport={"width": width, "height": 800 if width == 360 else 2160})
    visit.sample()
    visit.page.wait_for_selector(".panel[data-kind=classes]")
    for tab, there in (("predict", ".guesses"), ("look", "#heads button"), ("run", ".tiles")):
        visit.page.click(f"#tab-{tab}")
        visit.page.wait_for_selector(there)
        over = visit.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{tab} is {over} pixels wider than the window"
    visit.close()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, address: str, colours: str) -> None:
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core").Axe
    visit = Visit(browser, address, color_scheme=colours, bypass_csp=True)
    page = visit.page
    assert page.get_attribute("#theme", "aria-pressed") == str(colours == "dark").lower()

    def check(where: str) -> None:
        found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [node["html"][:120] for node in v["nodes"][:3]]) for v in found]
        assert not told, f"{where}: {told}"

    check("empty")
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    page.select_option("#second", "semantic_fpn_lit_ti")
    page.wait_for_selector(".panel[data-kind=map]")
    check("predict")
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"x"})
    page.wait_for_selector(".note")
    check("note")
    for tool in ("attention", "offsets", "features", "frequency"):
        visit.look(tool)
        check(tool)
    page.click("#tab-run")
    page.click("text=Examine the held-out images")
    page.wait_for_selector(".confusion", timeout=60_000)
    check("run")
    page.click("#theme")
    check("the other colours")
    visit.close()
