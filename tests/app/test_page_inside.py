"""The page at the sizes of detectors, beside exported files, and while what was asked for is on its way."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from browsing import Visit, serving
from made import write_dense_run, write_run
from small import HEADS

import litevit
from litevit.app.choices import Choices
from litevit.explain import merging_offsets, sampling_chain
from litevit.explain.draw.offsets import draw_offsets
from litevit.jobs.looking import open_look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]  # three exports are verified first
FORMATS = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that looks at several hundred cells, and a panoptic model."""
    runs = tmp_path_factory.mktemp("dense")
    write_dense_run(runs / "detector", resize=True, min_size=640, max_size=1100)
    name, small = families.SMALL["litv2"]
    heads = {key: value for key, value in HEADS["panoptic_fpn"].items() if key not in ("num_things", "num_stuff")}
    options = {"backbone": name, **small, **heads, "min_size": 140, "max_size": 300}
    write_dense_run(runs / "panoptic", "quickstart-panoptic", **options)
    return runs


@pytest.fixture(scope="module")
def twins(dense: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The panoptic model as exported files."""
    files = [tmp_path_factory.mktemp("exported") / f"panoptic{ending}" for ending in FORMATS.values()]
    for file, format in zip(files, FORMATS):  # of the run's folder, which knows the names of classes
        assert litevit.export(dense / "panoptic", file, format=format).verified
    return files


@pytest.fixture
def dense_visit(browser: Any, dense: Path) -> Iterator[Visit]:
    with serving(Choices(runs=[dense])) as address:
        opened = Visit(browser, address)
        yield opened
        opened.close()


@pytest.fixture
def twins_visit(browser: Any, dense: Path, twins: list[Path]) -> Iterator[Visit]:
    with serving(Choices(runs=[dense], exported=twins)) as address:
        opened = Visit(browser, address)
        yield opened
        opened.close()


def test_offsets_and_features_of_a_detector(dense_visit: Visit, dense: Path, tmp_path: Path) -> None:
    page = dense_visit.page
    page.select_option("#model", "run:detector")
    dense_visit.sample(1)  # 320 x 240
    page.wait_for_selector(".panel[data-kind=objects]", timeout=60_000)
    dense_visit.look("offsets")
    page.select_option("#offset-kind", "all")
    page.wait_for_selector("text=All 540 cells of the last map, 20 × 27, through")
    with page.expect_download() as download:
        page.click("#save-source")
    download.value.save_as(tmp_path / "scene.png")
    look = open_look(None, dense / "detector")
    written = draw_offsets(look, [("scene", tmp_path / "scene.png")], tmp_path / "out")
    with np.load(next(path for path in written if path.name == "scene-offsets-overview.npz")) as arrays:
        far = np.hypot(*(arrays["mean_xy"] - arrays["centres_xy"]).T).mean()
    assert far > 1
    told = page.inner_text("#readout").split("displaced by ")[1]
    assert float(told.split()[0]) == pytest.approx(far, rel=0.01)
    page.select_option("#offset-kind", "density")
    page.wait_for_selector("text=points lie in each patch of 4 × 4 pixels")
    page.select_option("#offset-kind", "cell")
    box = page.locator("#canvas").bounding_box()
    page.mouse.click(box["x"] + 0.99 * box["width"], box["y"] + 0.99 * box["height"])
    assert dense_visit.cell() == 539
    assert "--cells 19 26" in page.inner_text("#command")
    for stage, cells in (("1", "160 × 216"), ("4", "20 × 27")):
        dense_visit.look("features")
        page.select_option("#stage", stage)
        page.wait_for_selector(f"text=of {cells}. Its likeness")
        drawn = []
        for part in (0.1, 0.5, 0.8):
            page.mouse.click(box["x"] + part * box["width"], box["y"] + part * box["height"])
            drawn.append(float(page.get_attribute("#canvas", "data-drawn")))
        assert min(drawn) < 100  # milliseconds; 34,560 cells in stage 1


def test_the_browser_counts_points_as_the_library(visit: Visit, folder: Path) -> None:
    with torch.no_grad():
        offsets = [o[0] for o in merging_offsets(litevit.run(folder).model().backbone, torch.randn(1, 3, 96, 64))]
    levels = [{"values": o.flatten().tolist(), "shape": list(o.shape)} for o in offsets]
    found = visit.page.evaluate(
        """async (levels) => {
            const { allChains } = await import("./maths.js");
            const typed = levels.map(({ values, shape }) => Object.assign(Float32Array.from(values), { shape }));
            const { density, means } = allChains(typed, [24, 16]);
            return { density: [...density], means };
        }""",
        levels,
    )
    density, means = np.zeros((24, 16)), []
    for row in range(3):
        for column in range(2):
            points = sampling_chain(offsets, row=row, column=column)
            means.append(points.mean(0))
            for y, x in np.floor(points + 0.5).astype(int):
                if 0 <= y < 24 and 0 <= x < 16:
                    density[y, x] += 1
    np.testing.assert_array_equal(np.reshape(found["density"], (24, 16)), density)
    np.testing.assert_allclose([[m["y"], m["x"]] for m in found["means"]], means, atol=1e-5)


def test_panoptic_files_beside_their_model(twins_visit: Visit, twins: list[Path]) -> None:
    page = twins_visit.page
    page.select_option("#model", "run:panoptic")
    twins_visit.sample(2)
    page.wait_for_selector(".panel[data-kind=map]", timeout=60_000)
    for n, file in enumerate(twins):
        page.select_option("#second", f"exported:{n}:{file.name}")
        page.wait_for_selector(f".panel:nth-child(2) h3:text-is('{file.name}')", timeout=60_000)
        shown = [panel.locator(".legend li").all_inner_texts() for panel in page.locator(".panel").all()]
        assert len(shown[0]) > 1
        names = [[row.split("\n")[0] for row in rows] for rows in shown]
        assert names[0] == names[1]
        shares = [[float(row.split()[-2]) for row in rows] for rows in shown]
        np.testing.assert_allclose(*shares, atol=0.2)  # per cent of the picture
        page.locator(".panel >> nth=1 >> .legend input >> nth=0").uncheck()
        told = [page.locator(f".panel >> nth={k} >> canvas").get_attribute("aria-label") for k in (0, 1)]
        assert f"{len(shown[0])} segments" in told[0]
        assert f"{len(shown[0]) - 1} segments" in told[1]
    twins_visit.page.select_option("#model", f"exported:0:{twins[0].name}")
    page.click("#tab-look")
    page.wait_for_selector("text=is an exported file: it holds no layers to look into")


class Held:
    """Requests that wait until the test lets them go on."""

    def __init__(self, visit: Visit, pattern: str):
        self.waiting: list[Any] = []
        self.holding = True
        visit.page.route(pattern, self.take)

    def take(self, route: Any) -> None:
        if self.holding:
            self.waiting.append(route)
        else:
            route.continue_()

    def let_go(self) -> None:
        self.holding = False
        for route in self.waiting:
            route.continue_()


@pytest.mark.parametrize("tool", ["offsets", "features", "frequency"])
def test_the_picture_answers_while_another_view_is_on_its_way(visit: Visit, tool: str) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("attention")
    page.wait_for_selector("text=looks most at")
    held = Held(visit, "**/api/look/*")
    page.check(f"input[value={tool}]", force=True)
    page.wait_for_function("() => document.querySelector('#frame[aria-busy]')")
    page.click("#canvas", position={"x": 20, "y": 20})
    page.locator("#canvas").press("ArrowRight")
    page.locator("#heat-opacity").press("ArrowRight")
    assert "looks most at" in page.inner_text("#readout")  # of what is shown
    assert page.inner_text("#command").startswith("litevit explain attention")
    held.let_go()
    page.wait_for_selector("#frame:not([aria-busy])")
    assert page.inner_text("#command").startswith(f"litevit explain {tool}")


def test_another_model_is_chosen_while_one_is_shown(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("attention")
    page.wait_for_selector("text=looks most at")
    before = page.inner_text("#command")
    held = Held(visit, "**/api/describe")
    page.select_option("#model", "pvt_s")
    page.wait_for_timeout(200)
    page.click("#canvas", position={"x": 20, "y": 20})
    assert page.inner_text("#command").split("--pixel")[0] == before.split("--pixel")[0]
    with page.expect_download() as download:
        page.click("#save-arrays")
    assert download.value.suggested_filename == "digit-3-attention-stage-3-block-1.npz"
    held.let_go()
    page.wait_for_selector("#command:has-text('--model pvt_s')")


def test_a_model_chosen_while_another_computes_is_the_one_that_is_shown(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    held = Held(visit, "**/api/predict")
    page.select_option("#model", "pvt_s")
    page.wait_for_function("() => document.querySelector('#panels[aria-busy]')")
    held.holding = False
    page.select_option("#model", "lvt")
    page.wait_for_selector(".panel h3:text-is('lvt, random weights')")
    held.let_go()  # the page has given it up
    page.wait_for_timeout(200)
    assert page.locator(".panel h3").all_inner_texts() == ["lvt, random weights"]
    assert page.locator(".note").count() == 0
    assert page.get_attribute("#panels", "aria-busy") is None


def test_a_model_that_cannot_be_opened_is_said_in_both_views(visit: Visit) -> None:
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    visit.look("attention")
    page.wait_for_selector("text=looks most at")
    refusal = {"status": 400, "body": json.dumps({"error": "pvt_s is broken"}), "content_type": "application/json"}
    page.route("**/api/describe", lambda route: route.fulfill(**refusal))
    page.select_option("#model", "pvt_s")
    page.wait_for_selector(".note:has-text('pvt_s is broken')")
    assert "looks most at" in page.inner_text("#readout")  # nothing is lost
    visit.sample(5)
    page.wait_for_selector("#look-note:has-text('pvt_s is broken')")
    page.unroute("**/api/describe")
    page.select_option("#model", "run:digits")
    page.wait_for_selector("text=looks most at")
    assert page.locator("#look-note").is_hidden()


def test_a_large_map_shows_the_last_cell_asked_for(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litevit.app.looks.MOST", 10)
    page = visit.page
    visit.sample()
    page.wait_for_selector(".panel[data-kind=classes]")
    page.click("#tab-look")
    page.wait_for_selector("text=looks most at")
    held = Held(visit, "**/api/look/row")
    box = page.locator("#canvas").bounding_box()
    for part in (0.1, 0.4, 0.9):  # cells 0, 5 and 15
        page.mouse.click(box["x"] + part * box["width"], box["y"] + part * box["height"])
    assert "on its way" in page.inner_text("#readout")
    page.select_option("#block", "0")  # while the row is on its way
    page.wait_for_selector("#frame:not([aria-busy])")
    held.let_go()
    page.wait_for_selector("text=row 3, column 3 of 4 × 4")
    page.wait_for_selector("text=looks most at")
    assert visit.cell() == 15


def test_a_run_that_vanishes_and_a_server_that_is_gone(browser: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "live")
    with serving(Choices(runs=[tmp_path])) as address:
        visit = Visit(browser, address + "#run")
        page = visit.page
        page.wait_for_selector(".tiles")
        shutil.rmtree(folder)
        page.wait_for_selector("#run-state:has-text('no longer there')", timeout=20_000)
        assert page.locator(".chart svg").count() == 3  # what was read stays
        assert page.locator(".note").count() == 0
        write_run(folder)
        page.wait_for_selector("#run-state:text-is('training')", timeout=20_000)
        page.route("**/api/runs/*", lambda route: route.abort())
        page.wait_for_selector(".note:has-text('Is litevit app still running?')", timeout=20_000)
        page.wait_for_timeout(11_000)  # it is asked again
        assert page.locator(".note").count() == 1
        visit.outside.clear()
        visit.close()
