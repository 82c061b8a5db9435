"""The stage `page`: the Vega scripts as a file, so that the page of plots needs no network.

`dvc plots show` and `dvc plots diff` fill the template .dvc/page.html; in a browser, the page loads
the file that is written here. The scripts are those that the package vl-convert carries.
"""

from pathlib import Path

import vl_convert

from stages.base.files import replacing
from stages.base.stage import run_stage

SCRIPT = Path("plots/vega.js")
VEGA_LITE = "5.21"  # DVC's chart templates are written for Vega-Lite 5


def bundle() -> str:
    """JavaScript that defines `vegaEmbed` with all it needs, and nothing else, in any page.

    vl-convert makes an ES module, which browsers do not load from a local file. Within a function
    in strict mode, the same code is a script like any other.
    """
    module = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return f'(() => {{\n"use strict";\n{module}\n}})();\n'


def main() -> None:
    with replacing(SCRIPT) as temporary:
        temporary.write_text(bundle(), encoding="utf-8", newline="\n")
    print(f"{SCRIPT.as_posix()}: Vega-Lite {VEGA_LITE} for the page of `dvc plots show`")


if __name__ == "__main__":
    run_stage(main)
