"""The report's figures, as SVG text that stands in the page itself. Colors are those of Okabe and Ito, which the
color-blind tell apart; on paper without color, order and hatching do."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++", "oo")
matplotlib.rcParams.update({"svg.hashsalt": "pedboneseg", "svg.fonttype": "path", "font.size": 9})


def box_plots(title: str, bones: Sequence[str], runs: dict[str, list[list[float]]], unit: str = "") -> str:
    """Boxes of every run, bone by bone: `runs` maps a run to its values a bone. Boxes hold the middle half, the line is
    the median, whiskers reach to 1.5 times the box, every exam beyond is a point."""
    figure = Figure((max(4.0, 0.6 + 0.32 * len(bones) * (len(runs) + 1)), 3.0), layout="constrained")
    axes = figure.subplots()
    for number, (_name, values) in enumerate(runs.items()):
        places = [bone * (len(runs) + 1) + number for bone in range(len(bones))]
        boxes = axes.boxplot(values, positions=places, widths=0.8, patch_artist=True, flierprops={"markersize": 3})
        for box in boxes["boxes"]:
            box.set(facecolor=COLORS[number % len(COLORS)], alpha=0.75, hatch=HATCHES[number % len(HATCHES)])
        for median in boxes["medians"]:
            median.set(color="black")
    axes.set_xticks([bone * (len(runs) + 1) + (len(runs) - 1) / 2 for bone in range(len(bones))], bones)
    axes.set_ylabel(unit or title)
    axes.set_title(title)
    _legend(figure, axes, list(runs))
    return _svg(figure)


def curves(title: str, runs: dict[str, list[tuple[list[float], list[float]]]], label: str) -> str:
    """A thin line a fold, in the run's color."""
    figure = Figure((6.0, 3.0), layout="constrained")
    axes = figure.subplots()
    for number, folds in enumerate(runs.values()):
        for steps, values in folds:
            axes.plot(steps, values, color=COLORS[number % len(COLORS)], linewidth=0.8, alpha=0.8)
    axes.set(xlabel="step", ylabel=label, title=title)
    _legend(figure, axes, list(runs))
    return _svg(figure)


def reliability(title: str, runs: dict[str, tuple[list[float], list[float]]]) -> str:
    """How often voxels are right (vertical) that the network gives this probability (horizontal); a calibrated network
    lies on the diagonal."""
    figure = Figure((3.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle="--")
    for number, (claimed, right) in enumerate(runs.values()):
        axes.plot(claimed, right, marker="os^Dv<>p"[number % 8], markersize=3, color=COLORS[number % len(COLORS)])
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability claimed", ylabel="share right", title=title)
    _legend(figure, axes, list(runs), first=1)
    return _svg(figure)


def scatter(title: str, groups: dict[str, list[tuple[float, float]]], labels: tuple[str, str]) -> str:
    """A point an exam, a color and a shape a group."""
    figure = Figure((3.6, 3.4), layout="constrained")
    axes = figure.subplots()
    for number, (name, points) in enumerate(groups.items()):
        across, up = zip(*points, strict=True)
        axes.scatter(across, up, s=14, label=name, marker="os^Dv<>p"[number % 8], color=COLORS[number % len(COLORS)])
    axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
    axes.legend(fontsize=7)
    return _svg(figure)


def _legend(figure: Figure, axes, names: list[str], first: int = 0) -> None:
    if axes.lines and not axes.patches:
        handles = {line.get_color(): line for line in axes.lines[first:]}
        handles = [handles[COLORS[number % len(COLORS)]] for number in range(len(names))]
    else:
        each = len(axes.patches) // len(names)
        handles = [axes.patches[number * each] for number in range(len(names))]
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)), fontsize=7, frameon=False)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
