"""`pedboneseg demo`: segments the bundled sample and writes a page with the pictures, the volumes and the labels."""

from html import escape
from pathlib import Path

from ..anatomy import display_name
from ..errors import BadInput
from ..files import write_text
from ..formats.names import ensure_folder
from ..formats.reading import read_volume
from ..formats.segments import read_segmentation
from ..models import store
from ..models.bundle import read_manifest
from ..progress import Progress, no_progress
from ..results.pictures import overlay, write_png
from ..results.rendering import render_bones
from .segment import SegmentOptions, segment
from .session import Session

SAMPLE = Path(__file__).parents[1] / "samples" / "knee.nii.gz"
JOINT = "knee"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>PedBoneSeg demo</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }}
figure {{ margin: 1.5rem 0 }}
figcaption {{ color: #555 }}
.result {{ display: flex; flex-wrap: wrap; gap: 2rem; align-items: center }}
td, th {{ padding: .2rem 1.5rem .2rem 0; text-align: left }}
td + td {{ text-align: right }}
.color {{ display: inline-block; width: 1em; height: 1em; margin-right: .5em; border: 1px solid #555 }}
pre {{ white-space: pre-wrap; font-size: 13px }}
</style>
<h1>PedBoneSeg demo</h1>
<p><b>Research software, not a medical device.</b> The image is synthetic: this software drew a child's knee and
computed the MR image. The model <b>{model}</b> found the bones in {seconds:.1f} s on {device} ({precision}).</p>
<div class="result">
<figure><img src="bones.png" alt="The bones in 3-D" width="400" height="400">
<figcaption>The bones from the front.</figcaption></figure>
<table><tr><th>Bone<th>Volume in ml</tr>
{rows}
</table>
</div>
{warnings}
<figure><img src="slices.png" alt="Slices of the knee with the bones tinted in the colors of the table">
<figcaption>Evenly spaced slices through the bones, in the same colors. Nothing was corrected: pieces away from a bone
are mistakes of the model.</figcaption></figure>
<p>The labels are in <a href="{labels}">{labels}</a>; 3D Slicer opens it with names and colors.</p>
<details><summary>About the model</summary><pre>{card}</pre></details>
</html>
"""
ROW = '<tr><td><span class="color" style="background: rgb{color}"></span>{name}<td>{volume:.1f}</tr>'


def run(folder: Path, progress: Progress = no_progress) -> Path:
    """Writes labels, pictures and the page into `folder`, replacing those of an earlier call; returns the page."""
    manifest = read_manifest(store.resolve())
    if not SAMPLE.exists():
        raise BadInput("this copy comes without the sample", f"run: pedboneseg segment YOUR_IMAGE --joint {JOINT}")
    ensure_folder(folder)
    labels_file = folder / "knee_bones.seg.nrrd"
    options = SegmentOptions(str(SAMPLE), str(labels_file), joint=JOINT, overwrite=True)
    result = segment(Session(), options, lambda fraction, stage: progress(0.7 * fraction, stage))
    progress(0.75, "drawing")
    labels, grid, table, _ = read_segmentation(labels_file)
    write_png(folder / "slices.png", overlay(read_volume(SAMPLE), labels, table))
    write_png(folder / "bones.png", render_bones(labels, grid, table))
    rows = [
        ROW.format(color=bone.color, name=display_name(bone), volume=result["bones"][bone.name]["volume_ml"])
        for bone in table.bones
    ]
    page = PAGE.format(
        model=escape(f"{manifest.name} {manifest.version}"),
        card=escape(manifest.card),
        labels=labels_file.name,
        rows="\n".join(rows),
        warnings="\n".join(f"<p>Warning: {escape(notice['message'])}.</p>" for notice in result["warnings"]),
        **{key: result[key] for key in ("seconds", "device", "precision")},
    )
    write_text(folder / "index.html", page)
    progress(1.0, "done")
    return folder / "index.html"
