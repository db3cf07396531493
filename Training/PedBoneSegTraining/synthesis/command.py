"""`pedboneseg synthesize`: its options, and its progress on a terminal."""

import argparse
import sys
import time
from pathlib import Path

from PedBoneSegLib.errors import BadInput

from .anatomy.sources import Parametric, shape_source
from .cohort import Recipe, check_seed
from .rendering import HELD_OUT_PRESETS, PRESETS
from .writer import NUMBERS, write_cohort


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for Dataset101_Ankle, Dataset102_Knee, …")
    parser.add_argument("--joints", default="ankle,knee,shoulder", help="comma-separated; %(default)s")
    parser.add_argument("--exams", type=int, default=20, metavar="N", help="exams of each joint; %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="%(default)s")
    parser.add_argument(
        "--shapes",
        metavar="SHAPES",
        help="bones from a folder of people or of meshes, or a label map: FILE or FILE#femur=5,tibia=6,side=left",
    )
    parser.add_argument("--unlabelled", action="store_true", help="images only, in imagesTs")
    parser.add_argument("--preset", choices=sorted(PRESETS | HELD_OUT_PRESETS), help="every exam in one sequence")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; all cores")


def run(args: argparse.Namespace) -> int:
    joints = [joint.strip() for joint in args.joints.split(",") if joint.strip()]
    for joint in joints:
        if joint not in NUMBERS:
            raise BadInput(f"there is no synthetic {joint!r}", f"choose among {', '.join(sorted(NUMBERS))}")
    if len(set(joints)) != len(joints) or not joints:
        raise BadInput(f"--joints {args.joints!r} names no joint, or one of them twice")
    if args.exams < 1:
        raise BadInput(f"--exams {args.exams} is less than 1")
    seed = check_seed(args.seed)
    sources = [shape_source(args.shapes, joint) if args.shapes else Parametric() for joint in joints]
    recipes = [Recipe(joint, seed, (one,), preset=args.preset) for joint, one in zip(joints, sources, strict=True)]
    folders = write_cohort(
        args.out, recipes, args.exams, labelled=not args.unlabelled, jobs=args.jobs, progress=_Progress(sys.stderr)
    )
    for folder in folders:
        print(folder)
    return 0


class _Progress:
    """One line that is rewritten: exams done, and the time left by the pace of this run. Silent in a pipe."""

    def __init__(self, stream):
        self.stream, self.begun, self.found = stream, time.monotonic(), None

    def __call__(self, done: int, total: int) -> None:
        if not self.stream.isatty():
            return
        if self.found is None:
            self.found = done
        made, left = done - self.found, ""
        if made:
            seconds = round((time.monotonic() - self.begun) / made * (total - done))
            left = f", {seconds // 60}:{seconds % 60:02d} left"
        self.stream.write(f"\r{done}/{total} exams{left}      " + ("\n" if done == total else ""))
        self.stream.flush()
