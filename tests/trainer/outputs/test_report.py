"""report.html: what it says of a run, and what a real browser makes of the page, on a desk and on a phone."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill_api.pod.report import RankSeconds
from distill_trainer.outputs.report.examples import Example, Examples, Panel
from distill_trainer.outputs.report.html import gap_closed, headline, report_html
from distill_trainer.outputs.report.report import (
    Agreement,
    Attempt,
    Dataset,
    Inherited,
    Measured,
    ModelReport,
    Output,
    Report,
    Training,
)
from tests.support.machine.browser import Page, address_of, headless
from tests.support.machine.python import ROOT

CLASSES = [f"class {number} with a rather long name" for number in range(80)]
WIDTHS = (360, 390, 1100)
CONTRAST = """
(() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const back = element => {
    for (; element; element = element.parentElement) {
      const found = parts(getComputedStyle(element).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(parts(element.closest("svg") ? style.fill : style.color)), light(back(element))];
    if ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 120));
  }
  return faint;
})()
"""
"""Elements whose text has less contrast than WCAG's 4.5."""


def model(map_: float, **fields: Any) -> ModelReport:
    by_class = {name: map_ * (number + 1) / len(CLASSES) for number, name in enumerate(CLASSES)}
    known = {"file": "some/long/path/to/weights/best.pt", "sha256": "0" * 64, "size_mb": 5.4, "map": map_}
    scores = {"map50": map_, "precision": map_, "recall": map_, "map_by_class": by_class}
    return ModelReport.model_validate(known | scores | {"parameters": 2_000_000, "latency_ms": 10.0} | fields)


def report(**fields: Any) -> Report:
    """A report with everything that there may be in one."""
    epochs = [
        {"epoch": float(epoch), "train/box_loss": 3.0 / epoch, "train/dis_loss": 1.0 / epoch, "val/box_loss": 2.0}
        | {"metrics/mAP50-95(B)": 0.1 * epoch, "metrics/mAP50-95(M)": 0.09 * epoch, "lr/pg0": 0.01, "lr/pg1": 0.02}
        for epoch in range(1, 5)
    ]
    left = {"the teacher has no room": [f"model.{number}.conv" for number in range(40)]}
    full: dict[str, Any] = {
        "job": "a-job-with-a-name-of-the-greatest-length-that-may-be-had-here",
        "task": "segment",
        "imgsz": 640,
        "dataset": Dataset(config="folder/data.yaml", digest="1" * 64, images=5000),
        "measured": Measured(device="cpu", name="CPU", threads=1, torch="2", ultralytics="8"),
        "training": Training(
            epochs=4, planned=4, best_epoch=4, seconds=100.0, recipe={"student": {"init": "inherit"}}, loss="bckd",
            schedule="cosine",
            inherited=Inherited(channels="index", images=64, share=0.9, tensors=300, of_tensors=366, left=left),
        ),
        "attempt": Attempt(number=3, nodes=2, ranks=4, seconds=RankSeconds(starting=10, training=80, validation=10)),
        "agreement": Agreement(images=48, student=0.8, baseline=0.4),
        "versions": {"torch": "2"},
        "spec": {"training": {"epochs": 4}, "note": "x" * 300},
        "models": {
            "student": model(0.4),
            "teacher": model(0.5, parameters=8_000_000, latency_ms=40.0),
            "baseline": model(0.3),
        },
        "epochs": epochs,
        "outputs": [Output(name="weights", files=["weights/best.pt"]), Output(name="onnx", problem="no <onnx> here")],
    }  # fmt: skip
    return Report.model_validate(full | fields)


def pictures() -> Examples:
    stream = io.BytesIO()
    Image.new("RGB", (300, 225), "#456").save(stream, "JPEG")
    panels = [Panel(role, stream.getvalue(), 300, 225, f"The {role} finds 3.") for role in report().models]
    shown = [Example(f"{number:012d}.jpg", {"student": 0.9, "baseline": 0.1}, panels) for number in range(4)]
    return Examples(None, shown, shown)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with headless() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(report_html(report(), pictures()))
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_window_and_needs_nothing(page: Page, file: Path, width: int, dark: bool) -> None:
    page.open(address_of(file), width, dark=dark)
    assert page.complaints() == []
    assert {url for url in page.requests() if not url.startswith("data:")} == {address_of(file)}
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


def test_without_a_browser_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for ci, outcome in (("false", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", ci)
        remedy = "apt-get install --no-install-recommends chromium-headless-shell"
        with pytest.raises(outcome, match=remedy), headless():
            raise AssertionError("there is no browser")


def test_light_and_dark_are_two_pages(page: Page, file: Path) -> None:
    seen = []
    for dark in (False, True):
        page.open(address_of(file), 390, dark=dark)
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            seen.append(shot.convert("L").resize((1, 1)).getpixel((0, 0)))
    assert seen[0] > 200
    assert seen[1] < 60


def test_everything_on_the_page_has_a_name(page: Page, file: Path) -> None:
    page.open(address_of(file), 1100)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    nameless = "[...document.querySelectorAll('img, svg, table, [tabindex]')].filter(element => !(element.alt || "
    nameless += "element.closest('[aria-label]') || element.matches('pre'))).length"
    assert page.evaluate(nameless) == 0
    assert page.evaluate("[...document.querySelectorAll('th')].filter(cell => !cell.scope).length") == 0
    tree = page.ask("Accessibility.getFullAXTree")["nodes"]
    images = [node for node in tree if node.get("role", {}).get("value") in ("image", "img")]
    assert len(images) >= 5 + 24
    assert [node for node in images if not node.get("name", {}).get("value")] == []


@pytest.mark.parametrize(
    ("maps", "closed", "says"),
    [
        ((0.4, 0.5, 0.3), 0.5, "closed 50% of the gap between the baseline and its teacher"),
        ((0.6, 0.5, 0.3), 1.5, "closed 150% of the gap"),
        ((0.2, 0.5, 0.3), -0.5, "closed -50% of the gap"),
        ((0.4, 0.3, 0.3), None, "133% of its teacher’s mAP50-95. The baseline is no worse than the teacher"),
        ((0.4, 0.5, None), None, "reaches 80% of its teacher’s mAP50-95"),
        ((0.4, 0.0, None), None, "teacher finds nothing"),
        ((0.4, None, None), None, "reaches 0.400 mAP50-95"),
    ],
)
def test_the_headline_says_what_was_gained(
    maps: tuple[float, float | None, float | None], closed: float | None, says: str
) -> None:
    roles = zip(("student", "teacher", "baseline"), maps, strict=True)
    found = report(models={role: model(value) for role, value in roles if value is not None})
    assert gap_closed(found) == (None if closed is None else pytest.approx(closed))
    assert says in headline(found)


def test_the_headline_says_what_the_student_costs() -> None:
    assert headline(report()).endswith("It has 25% of the teacher’s parameters and 25% of its latency.")
    unmeasured = {"student": model(0.4, parameters=None, latency_ms=None), "teacher": model(0.5)}
    assert "It has" not in headline(report(models=unmeasured))


def test_what_is_not_known_leaves_no_section() -> None:
    bare = report(
        models={"student": model(0.4)}, attempt=None, agreement=None, spec={}, versions={}, epochs=[],
        training=Training(epochs=0, planned=1, best_epoch=0, seconds=0.0),
    ).to_json()  # fmt: skip
    text = report_html(Report.model_validate_json(bare), Examples()).decode()
    for part in ("<img", "The job’s spec", "took from its teacher", "of the gap", "earlier attempt", "Learning rate"):
        assert part not in text
    assert "none: plain training" in text


def test_names_from_outside_are_no_html() -> None:
    evil = "<script>alert(1)</script>"
    named = model(0.4, file=evil, map_by_class={evil: 0.4})
    text = report_html(
        report(job=evil, models={"student": named}, versions={evil: evil}, spec={evil: evil}), pictures()
    ).decode()
    assert "<script" not in text
    assert "no &lt;onnx&gt; here" in text


@pytest.mark.parametrize("name", ["report-light.png", "report-phone.png"])
def test_the_pictures_of_the_docs_are_small(name: str) -> None:
    assert (ROOT / "docs" / "pictures" / name).stat().st_size <= 300_000


def test_a_page_of_pictures_is_one_file() -> None:
    text = report_html(report(), pictures()).decode()
    assert text.count("data:image/jpeg;base64," + base64.b64encode(pictures().agrees[0].panels[0].jpeg).decode()) == 24
    assert "http" not in text
