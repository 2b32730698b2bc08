"""What a screen reader is told of the page, from Chromium's own accessibility tree, and a walk through it by Tab."""

from typing import Any

import pytest
from browsing import Visit

pytestmark = pytest.mark.slow
STATES = {
    "tab": "selected", "checkbox": "checked", "radio": "checked", "slider": "value", "combobox": "value",
    "menulistpopup": "expanded",
}  # fmt: skip
VIEWS = ("predict", "predict two", "attention", "offsets", "features", "frequency", "run", "run examined")

# Everything that Tab can reach and a person sees; of a group of radio buttons, of tabs, the one that is chosen.
REACHABLE = """() => [...document.querySelectorAll("a[href], button, input, select, [tabindex]")].filter((e) => {
    if (e.tabIndex < 0 || e.disabled || !e.checkVisibility()) return false;
    return e.type !== "radio" || e.checked;
}).map((e) => { e.dataset.walk ??= String(window.walked = (window.walked ?? 0) + 1); return e.dataset.walk; })"""
BEGIN = """() => {
    const { body } = document;
    body.tabIndex = -1;
    body.focus();
    body.removeAttribute("tabindex");
}"""
FOCUSED = """() => {
    const e = document.activeElement;
    if (!e || e === document.body) return null;
    const shown = e.type === "radio" ? e.nextElementSibling : e.type === "file" ? e.nextElementSibling : e;
    const { outlineStyle, outlineWidth } = getComputedStyle(shown), box = shown.getBoundingClientRect();
    const header = document.querySelector("header.top");
    const above = header.contains(e) || e.matches(".skip"); // the link lies on it
    const top = above ? 0 : header.getBoundingClientRect().bottom;
    const inside = box.bottom > top && box.top < innerHeight && box.right > 0 && box.left < innerWidth; // not below it
    const visible = inside && outlineStyle !== "none" && outlineWidth !== "0px";
    return { walk: e.dataset.walk, what: e.outerHTML.slice(0, 90), visible };
}"""


def go(visit: Visit, view: str) -> None:
    page = visit.page
    page.evaluate("() => scrollTo(0, 0)")
    if view == "predict":
        visit.sample()
        page.wait_for_selector(".panel[data-kind=classes]")
    elif view == "predict two":
        page.select_option("#second", "retinanet_lit_ti")
        page.wait_for_selector(".panel[data-kind=objects]", timeout=120_000)
    elif view == "run":
        page.click("#tab-run")
        page.wait_for_selector(".tiles")
    elif view == "run examined":
        page.click("text=Examine the held-out images")
        page.wait_for_selector(".confusion", timeout=60_000)
    else:
        visit.look(view)


def tree(visit: Visit) -> list[dict[str, Any]]:
    """Nodes that are told to a screen reader: role, name, and properties."""
    tools = visit.context.new_cdp_session(visit.page)
    nodes = tools.send("Accessibility.getFullAXTree")["nodes"]
    tools.detach()
    told = []
    for node in nodes:
        if node["ignored"]:
            continue
        properties = {p["name"]: p["value"].get("value") for p in node.get("properties", ())}
        if "value" in node:
            properties["value"] = node["value"].get("value")
        told.append({"role": node["role"]["value"], "name": node.get("name", {}).get("value", ""), **properties})
    return told


def test_every_control_has_a_role_a_name_and_a_state(visit: Visit) -> None:
    pressed = []
    for view in VIEWS:
        go(visit, view)
        told = tree(visit)
        pressed += [node for node in told if node["role"] == "button" and "pressed" in node]
        controls = [node for node in told if node.get("focusable") and node["role"] not in ("RootWebArea", "main")]
        count = visit.page.evaluate(REACHABLE)
        assert len(controls) >= len(count) > 5, view
        for node in controls:
            role = node["role"].lower()
            where = f"{view}: {node}"
            assert role not in ("generic", "none", "genericcontainer", "group"), where
            assert node["name"].strip(), where
            if role in STATES:
                assert node.get(STATES[role]) is not None, where
        pictures = [node for node in told if node["role"] in ("image", "img")]
        assert all(node["name"].strip() for node in pictures), [n for n in pictures if not n["name"].strip()]
        headings = [node["name"] for node in told if node["role"] == "heading"]
        assert headings[0] == "litevit"
        assert [n["name"] for n in told if n["role"] == "tab" and n["selected"]] == [
            {"predict": "Predict", "run": "Runs"}.get(view.split()[0], "Look inside")
        ]
    assert any(node["name"] == "Dark colours" for node in pressed)
    assert {n["pressed"] for n in pressed if n["name"] == "Handwritten digit 3"} == {"true"}  # the one that is shown
    assert {n["pressed"] for n in pressed if n["name"] == "Handwritten digit 8"} == {"false"}


def live(visit: Visit) -> str:
    """What stands in live regions, which a screen reader says when it changes."""
    nodes = [node for node in tree(visit) if node.get("live") == "polite"]
    assert nodes
    return " | ".join(visit.page.locator("[role=status]").all_inner_texts())


def test_results_are_announced(visit: Visit) -> None:
    page = visit.page
    page.wait_for_selector("body[data-ready=true]")
    go(visit, "predict")
    first = page.inner_text(".guesses li >> nth=0").split("\n")[0]
    assert f"digits: {first} " in live(visit)
    page.select_option("#model", "retinanet_lit_ti")
    page.wait_for_selector(".panel[data-kind=objects]", timeout=120_000)
    assert "retinanet_lit_ti, random weights: " in live(visit)
    page.locator("#threshold").press("End")
    assert "0 of " in live(visit)
    page.select_option("#model", "run:digits")
    visit.look("attention")
    assert "looks most at" in live(visit)
    page.select_option("#model", "pvt_s")
    page.check("input[value=offsets]", force=True)
    page.wait_for_selector("#look-note:visible")
    assert "no deformable token merging" in live(visit)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"x"})
    page.wait_for_selector(".note")
    assert "a.png is not an image" in live(visit)
    go(visit, "run")
    assert "training" in live(visit)
    go(visit, "run examined")
    assert "of 360 right." in live(visit)


@pytest.mark.parametrize("width", [360, 1280])
def test_tab_reaches_everything_and_the_focus_is_seen(browser: Any, address: str, width: int) -> None:
    visit = Visit(browser, address, viewport={"width": width, "height": 800})
    page = visit.page
    for view in VIEWS:
        go(visit, view)
        wanted = set(page.evaluate(REACHABLE))
        page.evaluate(BEGIN)
        reached: dict[str, bool] = {}
        for _ in range(len(wanted) + 3):
            page.keyboard.press("Tab")
            if (found := page.evaluate(FOCUSED)) is None:
                break
            reached[found["walk"]] = True
            assert found["visible"], f"{view}: the focus is not seen on {found['what']}"
        missed = [page.inner_html(f"[data-walk='{n}']")[:90] for n in wanted - reached.keys()]
        assert not missed, f"{view}: Tab does not reach {missed}"
    visit.close()
