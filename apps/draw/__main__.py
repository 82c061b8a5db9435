"""The page to draw or drop pictures on, models/exported/draw.html, with the first model in it.

    python -m apps.draw

The page is the template apps/draw/page.html with what `package` wrote for it.
"""

import base64
import json
from pathlib import Path

from stages.base import params
from stages.base.files import atomic_output
from stages.base.stage import UserError, run_stage
from stages.prediction import rejection
from stages.prediction.predict import Ensemble, folder_of

TEMPLATE = Path("apps/draw/page.html")
PAGE = Path("models/exported/draw.html")


def main() -> None:
    seed = params.load().seeds[0]
    model = Ensemble([seed])
    info = model.info
    if info.height != info.width:
        raise UserError(
            f"{PAGE}: expected square images, found those of {info.name} with {info.height}×"
            f"{info.width} pixels. To classify pictures: python -m apps.classify PICTURE"
        )
    data = json.loads((folder_of(seed) / "page.json").read_text(encoding="utf-8"))
    if "refused" in data:
        raise UserError(data["refused"])
    centres = model.predictors[0].held["centres"]
    content = data | {
        "subject": info.subject,
        "classes": info.classes,
        "size": info.height,
        "channels": info.channels,
        "drawn": info.channels == 1 and not info.fit,  # else it takes pictures only
        "fit": info.fit or (None if info.shows_digits else "crop"),  # of a picture
        "temperature": model.predictors[0].temperature,
        "threshold": model.threshold,
        "least": rejection.LEAST,
        "centres": base64.b64encode(centres.astype("<f2").tobytes()).decode(),
    }
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")  # no tag ends the data
    page = TEMPLATE.read_text(encoding="utf-8").replace(">MODEL<", f">{text}<")
    with atomic_output(PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    print(f"{PAGE}: {PAGE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run_stage(main, __doc__)
