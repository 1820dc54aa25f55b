"""Pictures show the same text on every rank and machine: no font, style or network of one matters."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from fontTools.ttLib import TTFont

DRAWN = """
import os, socket, sys
def refuse(*_, **__):
    os._exit(7)  # the network was asked
import torch
from pathlib import Path
from types import SimpleNamespace
from ultralytics.models.yolo.detect import val
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.outputs.pictures import draw_labels
socket.getaddrinfo = socket.create_connection = refuse
folder, names = Path(sys.argv[1]), {0: sys.argv[2]}
batch = {"img": torch.zeros(1, 3, 64, 64), "cls": torch.zeros(1), "bboxes": torch.full((1, 4), 0.5),
         "batch_idx": torch.zeros(1)}
def plot(batch, *rest):
    kind = "pred" if len(rest) > 1 else "labels"
    val.plot_images(batch, fname=validator.save_dir / f"val_batch0_{kind}.jpg", names=names)
validator = SimpleNamespace(
    confusion_matrix=SimpleNamespace(matrix=None), save_dir=None, plot_val_samples=plot, plot_predictions=plot)
figures = ValidationFigures()
figures.add_batch(validator, 0, batch, [])
assert not figures.of_rank.problems, figures.of_rank.problems
for name, content in figures.of_rank.pictures.items():
    (folder / name).write_bytes(content)
draw_labels([{"bboxes": torch.full((1, 4), 0.5).numpy(), "cls": torch.zeros(1, 1).numpy()}], names, folder)
"""


@pytest.mark.parametrize("label", ["dog", "na\u00efve"])
def test_pictures_are_the_same_whatever_fonts_and_styles_a_machine_has(tmp_path: Path, label: str) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    fonts = other / "settings" / "Ultralytics"
    for folder in (plain, fonts):
        folder.mkdir(parents=True)
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):  # another font under the names that Ultralytics looks for
        font = TTFont(Path(matplotlib.get_data_path(), "fonts/ttf/STIXGeneral.ttf"))
        font["name"].setName("Arial Unicode MS", nameID=1, platformID=3, platEncID=1, langID=0x409)
        font["name"].setName("Arial Unicode MS", nameID=1, platformID=1, platEncID=0, langID=0)
        font.save(fonts / name)
    (other / "matplotlibrc").write_text("font.family: monospace\nfont.size: 20\naxes.labelsize: 30\n")
    drawn = []
    for folder in (plain, other):
        own = {"YOLO_CONFIG_DIR": str(folder / "settings"), "MPLCONFIGDIR": str(folder), "HOME": str(folder)}
        command = [sys.executable, "-c", DRAWN, str(folder), label]
        subprocess.run(command, env=os.environ | own, cwd=folder, check=True, timeout=120)
        drawn.append({path.name: path.read_bytes() for path in folder.glob("*.jpg")})
    assert drawn[0].keys() == {"labels.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg"}
    assert [name for name in drawn[0] if drawn[0][name] != drawn[1][name]] == []
