"""A picture of what a model makes of real volumes, mistakes included: it measures nothing.

    python -m PedBoneSegTraining.studies.real --model MODEL --picture docs/images/real.jpg
        STS_010_MR_T1.nii.gz=knee STS_005_MR_T1.nii.gz=shoulder

A row for each volume, in the order given: evenly spaced slices of the whole volume with the bones tinted and outlined,
and the bones in 3-D. `--by-hand LABELS` adds a row with the labels that a person drew on the first volume.
"""

import argparse
from pathlib import Path

import numpy as np

from PedBoneSegLib.anatomy import JointTable, display_name
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.formats.segments import read_segmentation
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.results.pictures import tinted
from PedBoneSegLib.results.rendering import render_bones
from PedBoneSegLib.volume import Volume

TILE = 2.0  # inches
DOTS = 120  # per inch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", metavar="VOLUME=JOINT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--picture", type=Path, required=True, metavar="FILE.jpg")
    parser.add_argument("--by-hand", type=Path, metavar="LABELS", help="the first volume's bones, drawn by a person")
    parser.add_argument("--slices", type=int, default=6, help="of each volume (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()

    predictor, rows, colors = Predictor(Bundle.load(resolve(args.model)), args.device), [], {}
    for entry in args.volumes:
        path, equals, joint = entry.rpartition("=")
        if not equals:
            raise BadInput(f"{entry!r} names no joint", "write VOLUME=JOINT")
        volume = read_volume(path)
        result = predictor.segment(volume, joint)
        if args.by_hand and not rows:
            drawn, _, table, _ = read_segmentation(args.by_hand, joint)
            rows.append(("drawn by hand", *_pictures(volume, drawn, table, args.slices)))
        title = "PedBoneSeg" if args.by_hand else f"{Path(path).name.split('.')[0]}\nas {joint}"
        rows.append((title, *_pictures(volume, result.labels, result.table, args.slices)))
        colors |= {display_name(bone): np.array(bone.color) / 255 for bone in result.table.bones}
        ml = {bone.name: (result.labels == bone.label).sum() * volume.grid.voxel_ml for bone in result.table.bones}
        print(f"{Path(path).name}: " + ", ".join(f"{bone} {value:.1f} ml" for bone, value in ml.items()))
    _write(args.picture, rows, colors)


def _pictures(volume: Volume, labels: np.ndarray, table: JointTable, count: int) -> list[np.ndarray]:
    """Slices between the volume's first and last one, which show little, and the view in 3-D."""
    slices = tinted(volume, labels, table, count + 2, everywhere=True)[1:-1]
    return [*slices, render_bones(labels, volume.grid, table)]


def _write(path: Path, rows: list[tuple], colors: dict[str, np.ndarray]) -> None:
    """Each row is its title and its pictures; below them a legend of the bones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = len(rows[0]) - 1
    figure = Figure(figsize=(TILE * columns + 0.4, TILE * len(rows) + 0.5), dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, *pictures) in zip(axes, rows, strict=True):
        line[0].set_ylabel(title, fontsize=11)
        for cell, picture in zip(line, pictures, strict=True):
            cell.imshow(picture)
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
    patches = [Patch(facecolor=color, edgecolor="gray", label=name) for name, color in colors.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=12)
    with whole_file(path) as temporary:
        figure.savefig(temporary, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
