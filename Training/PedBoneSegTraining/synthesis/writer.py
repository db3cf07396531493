"""A cohort as nnU-Net v2 raw folders, written by all cores; what is whole stays when the work is interrupted."""

import gzip
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import sweep_partials, whole_file
from PedBoneSegLib.volume import Grid

from .anatomy import JOINTS
from .anatomy.draw import digest
from .cohort import Recipe
from .workers import pool

NUMBERS = {"ankle": 101, "knee": 102, "shoulder": 103, "hip": 104, "elbow": 105}
ENDING = ".nii.gz"
SAYS = "synthetic image made by PedBoneSeg, no patient"  # 79 characters at most: the header's description


@dataclass(frozen=True)
class Task:
    """One exam to write; a path of None is not written."""

    recipe: Recipe
    i: int
    image: Path
    labels: Path | None

    @property
    def files(self) -> list[Path]:
        return [self.image] + ([self.labels] if self.labels else [])


def dataset_folder(out: Path, joint: str) -> Path:
    return out / f"Dataset{NUMBERS[joint]}_{joint.capitalize()}"


def case_name(recipe: Recipe, i: int) -> str:
    return f"synthetic_{recipe.joint}_{recipe.seed}_{i:05d}"


def write_cohort(
    out: Path,
    recipes: list[Recipe],
    exams: int,
    *,
    labelled: bool = True,
    jobs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Writes exams 0 … `exams` − 1 of every recipe below `out`; returns the dataset folders.

    A file that is there already is kept, if it is of the same exam: another recipe in the same folder is BadInput.
    `progress(done, total)` counts exams, those that were there included.
    """
    tasks = [task for recipe in recipes for task in _prepare(out, recipe, exams, labelled)]
    missing = [task for task in tasks if not all(path.exists() for path in task.files)]
    done = len(tasks) - len(missing)
    progress(done, len(tasks))
    for _ in _each(missing, jobs or os.cpu_count() or 1):
        done += 1
        progress(done, len(tasks))
    folders = [dataset_folder(out, recipe.joint) for recipe in recipes]
    for recipe, folder in zip(recipes, folders, strict=True):
        _write_json(folder / "dataset.json", _description(recipe, exams, labelled))
    return folders


def _each(tasks: list[Task], jobs: int) -> Iterator[None]:
    """Writes the tasks, at most two in hand for each process, and yields as each is done."""
    if jobs == 1 or len(tasks) < 2:  # nothing to share
        for task in tasks:
            write_exam(task)
            yield
        return
    waiting = iter(tasks)
    with pool(min(jobs, len(tasks))) as processes:
        running: set[Future] = set()
        try:
            while True:
                while len(running) < 2 * jobs and (task := next(waiting, None)) is not None:
                    running.add(processes.submit(write_exam, task))
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for one in finished:
                    one.result()
                    yield
        finally:
            processes.shutdown(wait=True, cancel_futures=True)


def write_exam(task: Task) -> None:
    """Makes one exam and writes its files; the labels last, so that an exam with labels is a whole one."""
    rendering = task.recipe.acquire(task.i, 0, task.recipe.body(task.i))
    grid = rendering.volume.grid
    write_nifti(task.image, rendering.volume.array, grid)
    if task.labels:
        write_nifti(task.labels, rendering.labels, grid, is_labels=True)


def write_nifti(path: Path, array: np.ndarray, grid: Grid, is_labels: bool = False, level: int = 2) -> None:
    """NIfTI-1, gzipped at `level`, that says of itself that it is synthetic. The same array gives the same bytes."""
    image = nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine)  # NIfTI's world is RAS
    header = image.header
    header.set_xyzt_units("mm")
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    header["descrip"] = SAYS
    header.set_intent("label" if is_labels else "none", (), name="synthetic")
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        with gzip.GzipFile("", "wb", compresslevel=level, fileobj=stream, mtime=0) as packed:
            packed.write(image.to_bytes())


def _prepare(out: Path, recipe: Recipe, exams: int, labelled: bool) -> list[Task]:
    """The dataset's folders, its list of exams, and what there is to write."""
    folder = dataset_folder(out, recipe.joint)
    images, labels = folder / ("imagesTr" if labelled else "imagesTs"), folder / "labelsTr"
    for one in (folder, images) + ((labels,) if labelled else ()):
        one.mkdir(parents=True, exist_ok=True)
        sweep_partials(one)
    register = folder / "exams.json"
    known = json.loads(register.read_text()) if register.exists() else {}
    exam_list, tasks = {}, []
    for i in range(exams):
        name, parameters = case_name(recipe, i), recipe.parameters(i)
        exam_list[name] = {
            "seed": recipe.seed,
            "i": i,
            "parameters": digest(parameters),
            "side": parameters["anatomy"].get("side"),
            "age": parameters["anatomy"].get("age"),
            "contrast": parameters["image"]["contrast"],
            "plane": parameters["image"]["acquisition"]["plane"],
        }
        if known.get(name, exam_list[name]) != exam_list[name]:
            raise BadInput(f"{folder} holds {name} made in another way", "choose another folder or another seed")
        tasks.append(Task(recipe, i, images / f"{name}_0000{ENDING}", labels / f"{name}{ENDING}" if labelled else None))
    _write_json(register, known | exam_list)
    return tasks


def _description(recipe: Recipe, exams: int, labelled: bool) -> dict:
    """nnU-Net's dataset.json with our object in it."""
    joint = recipe.joint
    bones = {bone: value for value, bone in enumerate(JOINTS[joint].BONES, start=1)}
    sides = {case_name(recipe, i): recipe.parameters(i)["anatomy"].get("side") for i in range(exams)}
    return {
        "name": f"Synthetic {joint}s",
        "description": SAYS + "; contrasts and faults at random, see exams.json",
        "licence": "Apache-2.0",
        "channel_names": {"0": "MR"},
        "labels": {"background": 0} | bones,
        "numTraining": exams if labelled else 0,
        "file_ending": ENDING,
        "pedboneseg": {
            "joint": joint,
            "domain": joint,
            "sides": {case: side for case, side in sides.items() if side},
            "unlabelled": {},
            "reserved": [],
        },
    }


def _write_json(path: Path, content: dict) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
