"""The report as one HTML file: nothing in it asks for anything from elsewhere, and it prints on paper."""

from collections.abc import Iterable, Sequence
from html import escape

from ..evaluation.statistics import describe
from .collect import Row, RunScores, bones_of
from .exams import ExamPictures

UNITS = {"mssd": "mm", "assd": "mm", "hd95": "mm"}
NAMES = {"dice": "Dice", "mssd": "MSSD", "assd": "ASSD", "ravd": "RAVD", "hd95": "HD95", "surface_dice": "surface Dice"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #111 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } caption { text-align: left; font-weight: 600 }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap } th:first-child, td:first-child,
td.text { text-align: left } thead th { border-bottom: 2px solid #111 } tbody tr { border-bottom: 1px solid #ddd }
figure { margin: 1rem 0; page-break-inside: avoid } figcaption, .note { color: #444; font-size: .9em }
svg { max-width: 100%; height: auto } .exam img { width: 24rem; image-rendering: auto; background: #000 }
.exams { display: flex; flex-wrap: wrap; gap: 1rem } .key { display: inline-block; width: .8em; height: .8em }
@media print { body { font-size: 10px; max-width: none } details { display: block } input { display: none } }
"""
SCRIPT = """
for (const exam of document.querySelectorAll(".exam")) {
  const slices = JSON.parse(exam.querySelector("script").textContent), image = exam.querySelector("img");
  const number = exam.querySelector("output");
  exam.querySelector("input").addEventListener("input", event => {
    image.src = slices[event.target.value];
    number.value = `slice ${+event.target.value + 1} of ${slices.length}`;
  });
}
"""
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
<p class="note">Research software, not a medical device. Made by <code>{command}</code>.</p>
"""


def document(title: str, command: str, sections: Iterable[tuple[str, str]]) -> str:
    """`sections`: a heading and its HTML each."""
    head = HEAD.format(title=escape(title), style=STYLE, command=escape(command))
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n{content}" for heading, content in sections if content)
    return f"{head}{body}\n<script>{SCRIPT}</script></body></html>\n"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are words; cells are escaped."""
    lines = [
        "<tr>" + "".join(f'<td class="{"text" if n < texts else ""}">{escape(cell)}</td>' for n, cell in enumerate(row))
        for row in rows
    ]
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(lines)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def scores_table(runs: Sequence[RunScores], measure: str, rows: Sequence[Row]) -> str:
    """Bones down, runs across: mean ± standard deviation, and marks of what differs from the first run."""
    marks = {
        (row.run, row.domain, row.bone): significance(row.comparison.holm) for row in rows if row.measure == measure
    }
    lines = []
    for domain, bone in bones_of(runs):
        cells = [f"{domain}: {bone}"]
        for run in runs:
            found = describe(list(run.values(domain, bone, measure).values()))
            cells.append(f"{spread(found.mean, found.sd)}{marks.get((run.name, domain, bone), '')}")
        first = describe(list(runs[0].values(domain, bone, measure).values()))
        cells.append(str(first.n + first.missing))
        lines.append(cells)
    return table(label(measure), ["bone", *(run.name for run in runs), "exams"], lines)


def missing_table(runs: Sequence[RunScores]) -> str:
    """In how many of the exams that show a bone each run did not find it."""
    lines = []
    for domain, bone in bones_of(runs):
        found = [describe(list(run.values(domain, bone, "assd").values())) for run in runs]
        lines.append([f"{domain}: {bone}", *(f"{each.missing} of {each.n + each.missing}" for each in found)])
    return table("Bones in view that were not found", ["bone", *(run.name for run in runs)], lines)


def comparisons_table(rows: Sequence[Row], measure: str, first: str) -> str:
    head = ["run", "bone", "pairs", "mean difference", "95 % interval", "p (Wilcoxon)", "p (Holm)", "p (K–S)", "effect"]
    lines = []
    for row in rows:
        found = row.comparison
        if row.measure != measure:
            continue
        interval = "–" if found.low is None else f"{found.low:+.3f} to {found.high:+.3f}"
        lines.append([
            row.run, f"{row.domain}: {row.bone}", str(found.pairs), number(found.mean_difference, "+.3f"), interval,
            number(found.wilcoxon, ".3g"), number(found.holm, ".3g"), number(found.kolmogorov, ".3g"),
            number(found.effect, "+.2f"),
        ])  # fmt: skip
    return table(f"{label(measure)}: each run against {first}, exam by exam", head, lines, texts=2) if lines else ""


def exam_viewer(exam: ExamPictures) -> str:
    """A picture and a slider; on paper, the middle slice."""
    middle = len(exam.slices) // 2
    urls = ",".join(f'"{url}"' for url in exam.slices)
    return (
        f'<figure class="exam"><figcaption>{escape(exam.title)}</figcaption>'
        f'<img src="{exam.slices[middle]}" alt="A slice with the outlines of the bones">'
        f'<br><input type="range" min="0" max="{len(exam.slices) - 1}" value="{middle}" aria-label="slice">'
        f" <output>slice {middle + 1} of {len(exam.slices)}</output>"
        f'<script type="application/json">[{urls}]</script></figure>'
    )


def label(measure: str) -> str:
    name = NAMES.get(measure, measure)
    return f"{name} [{UNITS[measure]}]" if measure in UNITS else name


def spread(mean: float | None, sd: float | None) -> str:
    return "–" if mean is None else f"{mean:.3f}" if sd is None else f"{mean:.3f} ± {sd:.3f}"


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def significance(p: float | None) -> str:
    """Marks as in the publications, of p-values that Holm's method has corrected."""
    return "" if p is None or p >= 0.05 else " *" if p >= 0.01 else " **" if p >= 0.001 else " ***"


MEASURES_EXPLAINED = (
    "Dice, sensitivity and specificity: 1 is best. Surface Dice: the share of both surfaces within 1 mm of the other. "
    "Distances (ASSD: mean, MSSD: largest, HD95: 95th percentile) are in millimeters, over the exams where the "
    "bone was found. RAVD: relative difference in volume. A bone that is in view and was not found counts with Dice 0."
)
