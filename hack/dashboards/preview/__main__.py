"""python -m dashboards.preview play|draw FOLDER: let a small fleet live, and draw both boards from what it left."""

import argparse
import json
from pathlib import Path

from dashboards.preview import fleet, page
from dashboards.preview.prometheus import Prometheus
from dashboards.preview.source import Source, Window
from tests.support.prometheus.server import PrometheusServer

BOARDS = {"distill-fleet": "fleet.png", "distilljob": "job.png"}
TOP, BELOW_TOP = "job-top.png", "Learning"
"""The picture of the Job board's first rows, for the README, and the row that it ends above."""


def draw(folder: Path, out: Path) -> None:
    """Draw both boards from Prometheus' data in `folder`, which `play` has filled."""
    story = fleet.Story(**json.loads((folder / "story.json").read_text()))
    out.mkdir(parents=True, exist_ok=True)
    window = Window(story.start, story.end, fleet.SCRAPE_SECONDS)
    with PrometheusServer(folder / "prometheus", [], port=19091) as server:
        for name, picture in BOARDS.items():
            one = name == "distilljob"
            job = story.job if one else ".+"
            source = Source(Prometheus(server.url), window, {"namespace": ".+", "distilljob": job})
            board = json.loads((fleet.CHART / "dashboards" / f"{name}.json").read_text())
            subject = f"{fleet.NAMESPACE} / {job}" if one else fleet.NAMESPACE
            page.draw(board, source, out / picture, f"{subject}     {window.hours}")
            print(f"wrote {out / picture}")
            if one:
                page.draw_top(board, out / picture, out / TOP, BELOW_TOP)
                print(f"wrote {out / TOP}")


def main() -> None:
    """Play, draw, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["play", "draw", "all"], help="draw needs the folder that play has filled")
    parser.add_argument("folder", type=Path, help="folder for the fleet's files; play needs it to be new")
    parser.add_argument("--teacher", type=Path, help="weights of a detector of digits; without, one is trained first")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), help="folder for the pictures")
    arguments = parser.parse_args()
    if arguments.what != "draw":
        fleet.play(arguments.folder, arguments.teacher)
    if arguments.what != "play":
        draw(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
