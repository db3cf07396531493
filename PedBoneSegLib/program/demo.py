"""`pedboneseg demo`: the bundled sample, segmented by the model at hand, with pictures on a page to open."""

from html import escape
from pathlib import Path

from ..errors import BadInput
from ..files import write_text
from ..formats.reading import read_volume
from ..formats.segments import read_segmentation
from ..models import store
from ..progress import Progress, no_progress
from ..results.pictures import overlay, view_in_3d, write_png
from .verbs import SegmentOptions, Session, made_folder

SAMPLE = Path(__file__).parents[1] / "samples" / "knee.nii.gz"
JOINT = "knee"

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>PedBoneSeg demo</title>
<style>body {{ font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }} td, th {{ padding: .2rem 1rem .2rem 0; text-align: left }}</style>
<h1>PedBoneSeg demo</h1>
<p>A synthetic MR image of a child's knee, drawn by this software, segmented by the model <b>{model}</b> in
{seconds:.1f} s on {device} ({precision}). Research software, not a medical device.</p>
<p><img src="slices.png" alt="Slices with the bones tinted"></p>
{view}
<table><tr><th>Bone<th>Volume in ml</tr>{rows}</table>
<p>{warnings}</p>
<p>The labels: <a href="{labels}">{labels}</a>. What the model says of itself:</p>
<pre style="white-space: pre-wrap">{card}</pre>
</html>
"""


def run(folder: Path, progress: Progress = no_progress) -> Path:
    """Writes labels, pictures and the page into `folder`, over those of an earlier call; returns the page."""
    manifest = store.read_manifest(store.resolve())
    if not SAMPLE.exists():
        raise BadInput("this copy comes without the sample", f"run: pedboneseg segment YOUR_IMAGE --joint {JOINT}")
    made_folder(folder)
    labels_file = folder / "knee_bones.seg.nrrd"
    options = SegmentOptions(str(SAMPLE), str(labels_file), joint=JOINT, overwrite=True)
    result = Session().segment(options, lambda fraction, stage: progress(0.7 * fraction, stage))
    progress(0.75, "drawing")
    labels, _, table, _ = read_segmentation(labels_file)
    write_png(folder / "slices.png", overlay(read_volume(SAMPLE), labels, table))
    seen = view_in_3d(labels_file, JOINT, folder / "bones.png")
    page = PAGE.format(
        model=escape(f"{manifest.name} {manifest.version}"), labels=labels_file.name, card=escape(manifest.card),
        **{key: result[key] for key in ("seconds", "device", "precision")},
        view='<p><img src="bones.png" alt="The bones in 3-D"></p>' if seen else "",
        rows="".join(f"<tr><td>{bone}<td>{entry['volume_ml']:.1f}</tr>" for bone, entry in result["bones"].items()),
        warnings=" ".join(escape(notice["message"]) + "." for notice in result["warnings"]),
    )  # fmt: skip
    write_text(folder / "index.html", page)
    progress(1.0, "done")
    return folder / "index.html"
