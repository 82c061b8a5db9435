"""The page of plots: what DVC makes of its template, and what a browser shows offline."""

import json
import re
from pathlib import Path

import pytest
from browser import Tab
from conftest import ROOT, copy_project, dvc, run

TEMPLATE = (ROOT / ".dvc/page.html").read_text(encoding="utf-8")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A project with the losses of two epochs, and none of the other plots yet."""
    project = copy_project(tmp_path / "project")
    curves = project / "models/curves/seed-0.csv"
    curves.parent.mkdir(parents=True)
    curves.write_text("epoch,train_loss,validation_loss\n1,2.0,2.1\n2,1.5,1.6\n", encoding="utf-8")
    return project


def test_dvc_fills_the_template_before_any_stage_has_run(begun):
    dvc(begun, "plots", "show")
    shown = (begun / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert shown.startswith(TEMPLATE.split("{refresh_tag}")[0])
    assert shown.endswith(TEMPLATE.split("{plot_divs}")[1])
    assert not re.search(r"\{(scripts|plot_divs|refresh_tag)\}", shown)
    assert '"epoch": "2", "train_loss": "1.5"' in shown
    assert len(charts_of(shown)) >= 3


def charts_of(shown: str) -> list[str]:
    """The ids of the elements that DVC wants charts drawn in."""
    return re.findall(r"vegaEmbed\('#([^']+)', spec\);", shown)


# --- In a browser

# When the page has not changed for a second: what there is to see.
SEEN = """(async () => {
  for (let now = "", before; now !== before; ) {
    [before, now] = [now, document.body.innerHTML];
    await new Promise((done) => setTimeout(done, 1000));
  }
  const big = (element) => {
    const box = element.getBoundingClientRect();
    return box.width > 9 && box.height > 9;
  };
  return {
    charts: CHARTS.map((id) => document.getElementById(id)).filter(big).map((element) => ({
      drawn: [...element.querySelectorAll("svg")].some(big),
      text: element.lastChild.textContent.trim(),
      marks: [...element.querySelectorAll("svg .role-mark path")].filter(big).length,
    })),
    images: [...document.images].map((image) => image.naturalWidth > 0 && big(image)),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
})()"""


def look(tab: Tab, path: Path) -> dict:
    """What an offline browser shows of a page, and what it complains of."""
    tab.open(path)
    seen = tab.run(SEEN.replace("CHARTS", json.dumps(charts_of(path.read_text("utf-8")))))
    # What scripts say in the console is a fault if they call it an error.
    faults = [fault for fault in tab.faults() if fault.get("type", "error") == "error"]
    return seen | {"faults": faults}


def assert_all_is_drawn(seen: dict) -> None:
    assert len(seen["charts"]) >= 3
    assert all(chart["drawn"] for chart in seen["charts"]), seen["charts"]
    assert sum(chart["marks"] > 0 for chart in seen["charts"]) >= 3
    assert len(seen["images"]) >= 4
    assert all(seen["images"])
    assert seen["overflow"] == 0, "pictures are wider than the page"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "out"),
    [("diff main", "dvc_plots"), *(("show", out) for out in ("dvc_plots", ".", "a/b/c"))],
)
def test_page_is_drawn_offline_in_any_folder(tab, folder, command, out):
    if command == "diff main":
        curves = folder / "models/curves/seed-0.csv"
        text = curves.read_text(encoding="utf-8")
        curves.unlink()  # DVC may have linked it to its cache
        curves.write_text(text.replace("0.", "0.1"), encoding="utf-8")
    dvc(folder, "plots", *command.split(), "--out", out)
    seen = look(tab, folder / out / "index.html")
    assert_all_is_drawn(seen)
    assert seen["faults"] == []


@pytest.mark.slow
def test_without_data_the_page_shows_the_result_and_tells_what_brings_the_rest(
    tab, finished, tmp_path
):
    """As in a fresh clone; no test image is misclassified."""
    run("git", "clone", "-q", str(finished), "clone", cwd=tmp_path)
    clone = tmp_path / "clone"
    errors = clone / "metrics/misclassified.csv"
    errors.write_text(errors.read_text(encoding="utf-8").split("\n")[0] + "\n", encoding="utf-8")
    dvc(clone, "plots", "show")
    seen = look(tab, clone / "dvc_plots/index.html")
    missing = [chart["text"] for chart in seen["charts"] if not chart["drawn"]]
    assert [text.split(":")[0] for text in missing] == [
        "Accuracy while training",
        "Loss while training",
    ]
    assert all("dvc repro" in text for text in missing)
    assert seen["faults"] == []
