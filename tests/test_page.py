"""The page of plots: the script that its charts need, and the page as a browser without a network
shows it.
"""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, change_params, commit, copy_project, run

from stages import page

TEMPLATE = (ROOT / ".dvc/page.html").read_text(encoding="utf-8")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
NO_CHROMIUM = "no chromium is installed, so no page can be opened"
WEB = "https://cdn.jsdelivr.net/npm/"  # where DVC's pages have Vega from


@pytest.mark.slow
def test_stage_writes_the_same_script_in_every_process(workspace):
    page.main()
    script = page.SCRIPT.read_bytes()
    page.SCRIPT.unlink()
    run("python", "-m", "stages.page", cwd=workspace, PYTHONPATH=str(ROOT))
    assert page.SCRIPT.read_bytes() == script
    assert b"window.vegaEmbed=" in script[-100:]
    assert list(page.SCRIPT.parent.iterdir()) == [page.SCRIPT]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A project with the losses of two epochs, and none of the other plots yet."""
    project = copy_project(tmp_path / "project")
    curves = project / "models/trained/seed-0/curves.csv"
    curves.parent.mkdir(parents=True)
    curves.write_text("epoch,train_loss,validation_loss\n1,2.0,2.1\n2,1.5,1.6\n", encoding="utf-8")
    return project


def test_dvc_fills_the_template_before_any_stage_has_run(begun):
    run("dvc", "plots", "show", cwd=begun)
    shown = (begun / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert shown.startswith(TEMPLATE.split("{refresh_tag}")[0])
    assert shown.endswith(TEMPLATE.split("{plot_divs}")[1])
    assert not re.search(r"\{(scripts|plot_divs|refresh_tag)\}", shown)
    assert '"epoch": "2", "train_loss": "1.5"' in shown
    assert len(charts_of(shown)) >= 3


@pytest.mark.slow
def test_without_validation_images_the_curves_of_the_training_images_are_drawn(tmp_path):
    project = copy_project(tmp_path / "project")
    change_params(project, preprocess__validation_size=0)
    run("dvc", "repro", "train@0", cwd=project)
    assert "could not find" not in run("dvc", "plots", "show", cwd=project).stderr
    shown = (project / "dvc_plots/index.html").read_text("utf-8")
    assert '"epoch": "1", "train_accuracy": "0.' in shown


def charts_of(shown: str) -> list[str]:
    """The ids of the elements that DVC wants charts drawn in."""
    return re.findall(r"vegaEmbed\('#([^']+)', spec\);", shown)


# --- In a browser

# Goes into the page before anything else, and at the end notes what there is to see.
PROBE = """<script>
const faults = [];
addEventListener("error", (event) => faults.push(event.message || event.target.src), true);
addEventListener("unhandledrejection", (event) => faults.push(String(event.reason)));
console.error = (...message) => faults.push(message.join(" "));
const big = (element) => {
  const box = element.getBoundingClientRect();
  return box.width > 9 && box.height > 9;
};
addEventListener("load", () => setTimeout(() => {
  const seen = document.createElement("pre");
  seen.id = "seen";
  seen.textContent = JSON.stringify({
    faults,
    charts: CHARTS.map((id) => document.getElementById(id)).map((element) => ({
      drawn: [...element.querySelectorAll("svg")].some(big),
      text: element.lastChild.textContent.trim(),
      marks: [...element.querySelectorAll("svg .role-mark path")].filter(big).length,
    })),
    images: [...document.images].map((image) => image.naturalWidth > 0 && big(image)),
    notice: document.getElementById("notice").checkVisibility() ? notice.textContent : "",
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
  document.body.append(seen);
}, 5000));
</script>"""


def look(path: Path, profile: Path) -> dict:
    """What a browser without a network shows of a page, as PROBE notes it."""
    shown = path.read_text(encoding="utf-8")
    probe = PROBE.replace("CHARTS", json.dumps(charts_of(shown)))
    probed = path.with_name("probed.html")
    probed.write_text(shown.replace("<head>", f"<head>{probe}"), encoding="utf-8")
    found = run(
        CHROMIUM,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--no-proxy-server",
        "--virtual-time-budget=20000",  # a clock that stands still while anything is loading
        "--dump-dom",
        probed.as_uri(),
        cwd=path.parent,
    ).stdout
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', found, re.S)[1]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which `dvc repro` has run on digits, committed to the branch `main`."""
    if not CHROMIUM:
        pytest.skip(NO_CHROMIUM)
    project = copy_project(tmp_path_factory.mktemp("page") / "project")
    change_params(project, train__epochs=2)  # a curve of one point is no curve
    run("dvc", "repro", cwd=project)
    commit(project, "run")
    return project


def assert_all_is_drawn(seen: dict) -> None:
    assert len(seen["charts"]) >= 3
    assert all(chart["drawn"] for chart in seen["charts"]), seen["charts"]
    assert sum(chart["marks"] > 0 for chart in seen["charts"]) >= 3
    assert len(seen["images"]) >= 4
    assert all(seen["images"])
    assert seen["notice"] == ""
    assert seen["overflow"] == 0, "pictures are wider than the page"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "out"),
    [("diff main", "dvc_plots"), *(("show", out) for out in ("dvc_plots", ".", "a", "a/b/c/d"))],
)
def test_page_is_drawn_without_a_network_in_any_folder(folder, tmp_path, command, out):
    if command == "diff main":
        curves = folder / "models/trained/seed-0/curves.csv"
        text = curves.read_text(encoding="utf-8")
        curves.unlink()  # DVC may have linked it to its cache
        curves.write_text(text.replace("0.", "0.1"), encoding="utf-8")
    run("dvc", "plots", *command.split(), "--out", out, cwd=folder)
    seen = look(folder / out / "index.html", tmp_path / "profile")
    assert_all_is_drawn(seen)
    elsewhere = [fault for fault in seen["faults"] if fault.endswith("plots/vega.js")]
    assert seen["faults"] == ([] if out == "dvc_plots" else elsewhere)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM)
def test_page_names_charts_that_have_no_data_yet(begun, tmp_path):
    run("dvc", "repro", "page", cwd=begun)
    run("dvc", "plots", "show", cwd=begun)
    seen = look(begun / "dvc_plots/index.html", tmp_path / "profile")
    assert seen["faults"] == []
    drawn = {chart["text"]: chart["drawn"] for chart in seen["charts"]}
    assert list(drawn.values()).count(True) == 1, "the loss"
    assert "The result: no data yet" in drawn


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "(() => {", "var other = 1;"])
def test_page_says_what_charts_need(folder, tmp_path, content):
    """When there is no script, or it is damaged, and no network: one sentence, and the pictures."""
    (folder / page.SCRIPT).unlink()
    if content:
        (folder / page.SCRIPT).write_text(content, encoding="utf-8")
    run("dvc", "plots", "show", cwd=folder)
    seen = look(folder / "dvc_plots/index.html", tmp_path / "profile")
    assert not any(chart["drawn"] for chart in seen["charts"])
    assert "plots/vega.js" in seen["notice"]
    assert "dvc repro page" in seen["notice"]
    assert all(seen["images"])
    assert any(fault.startswith(WEB) for fault in seen["faults"]), "the web was not tried"


@pytest.mark.slow
def test_page_takes_the_scripts_from_the_web_where_nothing_has_run(folder, tmp_path):
    """One after the other, in DVC's order: each here needs the one before, as the real ones do."""
    run("dvc", "plots", "show", cwd=folder)
    script = (folder / page.SCRIPT).read_text(encoding="utf-8")
    (folder / page.SCRIPT).unlink()
    shown = folder / "dvc_plots/index.html"
    content = shown.read_text(encoding="utf-8")
    vega, lite, embed = re.findall(rf'src="{WEB}([^"]+)"', content)
    web = tmp_path / "web"
    web.mkdir()
    shown.write_text(content.replace(WEB, f"{web.as_uri()}/"), encoding="utf-8")
    (web / vega).write_text("window.first = 1;", encoding="utf-8")
    (web / lite).write_text("window.second = first + 1;", encoding="utf-8")
    (web / embed).write_text(f"second.toFixed();{script}", encoding="utf-8")
    assert_all_is_drawn(look(shown, tmp_path / "profile"))
