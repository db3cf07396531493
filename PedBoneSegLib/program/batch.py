"""A folder of inputs: one model, loaded once; one bad file does not stop the rest; a second call goes on where the
first one was interrupted, wherever that was.

The output folder holds the results, a manifest (which input, model and options each result was made from) and
`summary.csv`. What stands in them is an input's file name, which is the user's own, or a result; nothing is copied
from an image's header.
"""

import io
import json
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BadInput, Cancelled, PedBoneSegError, foreseen
from ..files import as_private_as, read_text, sweep_partials, whole_file, write_text
from ..formats.names import OUTPUT_TAG, check_output, ensure_folder, map_suffixes
from ..formats.reading import find_inputs
from ..plaintext import write_rows
from ..progress import Progress, no_progress
from .inputs import case_name, input_identity
from .logbook import log_bug
from .protocol import EXIT_CODES, failure
from .segment import SegmentOptions, segment
from .session import Session

MANIFEST = "pedboneseg-batch.json"
SUMMARY = "summary.csv"
MANIFEST_SCHEMA = 1

Row = dict[str, Any]


def segment_folder(
    session: Session, options: SegmentOptions, progress: Progress = no_progress, given_up: Collection[str] = ()
) -> Iterator[Row]:
    """Segments every volume in the folder `options.input`.

    Yields each file's `segment` object as soon as it is there, with `input` and `status` (done, skipped, failed) added,
    and last one with `summary`, whose `exit_code` is the highest of the files'. Inputs named in `given_up` ended the
    whole process in an earlier call and count as failed. What concerns all files alike (no model, no such joint, no
    such device, a place that cannot be written to) is raised before the first one.
    """
    inputs = find_inputs(options.source)
    if not inputs:
        raise BadInput(f"{options.source} holds no volume", "name a file, a DICOM folder, or a folder of volumes")
    if options.series is not None:
        raise BadInput("--series names one series", "leave it out for a folder of volumes")
    model = session.model(options.model, options.device).manifest
    from ..inference.detection import candidates  # torch is loaded by now, see `Session.model`

    candidates(model, options.joint)  # raises for all files at once
    folders = _output_folders(options)
    manifest, names, rows = _Manifest(folders["output"] / MANIFEST, options.source), _output_names(inputs), []
    for number, path in enumerate(inputs):

        def step(fraction: float, stage: str, number: int = number, name: str = path.name) -> None:
            progress((number + fraction) / len(inputs), f"{name}: {stage}")

        outputs = {name: folder / names[path] for name, folder in folders.items()}
        try:
            step(0.0, "preparing")
            row = manifest.result_of(path, options, model.sha256, outputs)
            if row is None:
                if path.name in given_up:
                    raise PedBoneSegError(f"{path.name} ended the program that worked on it", "crop it, or take it out")
                one = replace(options, input=str(path))
                row = _segment_file(session, one, outputs, model.sha256, manifest, step)
        except Cancelled:
            raise Cancelled(f"cancelled after {number} of {len(inputs)} files", "call again to go on") from None
        except Exception as error:
            if foreseen(error) is None:
                log_bug("batch", error)
            row = {"input": path.name, "status": "failed", "error": failure(error)}
        rows.append(row)
        yield row
    bones = [bone for card in model.domains for bone in card.table.names]
    with as_private_as(options.source):
        write_text(folders["output"] / SUMMARY, _summary_csv(rows, bones))
    counts = Counter(row["status"] for row in rows)
    yield {"summary": {
        "files": len(rows), **{status: counts[status] for status in ("done", "skipped", "failed")},
        "folder": str(folders["output"]), "csv": str(folders["output"] / SUMMARY),
        "exit_code": max(EXIT_CODES[row["error"]["kind"]] if "error" in row else 0 for row in rows),
    }}  # fmt: skip


def results_of_other_inputs(source: Path, output: Path | None = None) -> tuple[Path, list[str]]:
    """The folder that a call would write to, and the inputs whose results there belong to images of the same names in
    another folder. If any result there was made from an input as it is now, the folder is this one's, and what differs
    was changed since."""
    folder = output or _beside(source)
    entries = _Manifest(folder / MANIFEST, source).entries
    inputs = [path for path in find_inputs(source) if path.name in entries]
    if any(entries[path.name]["made_from"]["input"] == input_identity(path) for path in inputs):
        return folder, []
    return folder, [path.name for path in inputs]


class _Manifest:
    """What an earlier call did: by input name the hash of what a result was made from, the result, and the state of
    each file that was written, which tells whether it is still as we left it."""

    def __init__(self, path: Path, source: Path) -> None:
        self.path, self.source = path, source
        self.entries: dict[str, dict[str, Any]] = {}
        try:
            document = json.loads(read_text(path))
            if document["schema"] != MANIFEST_SCHEMA:
                raise ValueError(f"schema {document['schema']}")
            for entry in document["files"].values():
                entry["made_from"], entry["output"], entry["result"]["input"], entry["result"]["bones"].values()
            self.entries = document["files"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput(f"{path} is not readable ({error})", "delete it to start anew") from None

    def unchanged(self, name: str, outputs: dict[str, Path]) -> dict[str, bool]:
        """Which of an input's output files are there as we wrote them."""
        entry = self.entries.get(name, {})
        states = {"output": entry.get("output"), **entry.get("maps", {})}
        return {key: states.get(key) is not None and states[key] == _state(path) for key, path in outputs.items()}

    def result_of(self, path: Path, options: SegmentOptions, model: str, outputs: dict[str, Path]) -> Row | None:
        """The earlier result of this input, if it is still there and nothing that it was made from has changed."""
        entry = self.entries.get(path.name)
        if entry and self.unchanged(path.name, outputs)["output"]:
            if entry["made_from"] == _made_from(path, options, model):
                return {**entry["result"], "status": "skipped"}
        return None

    def record(self, name: str, made_from: dict[str, Any], files: dict[str, Path], result: Row) -> None:
        states = {key: _state(path) for key, path in files.items()}
        entry = {"made_from": made_from, "output": states.pop("output"), "maps": states, "result": result}
        entries = {**self.entries, name: entry}
        with as_private_as(self.source):
            write_text(self.path, json.dumps({"schema": MANIFEST_SCHEMA, "files": entries}, indent=1))
        self.entries = entries


def _made_from(path: Path, options: SegmentOptions, model: str) -> dict[str, Any]:
    return {"input": input_identity(path), "model": model, "options": options.identity()}


def _segment_file(
    session: Session,
    options: SegmentOptions,
    outputs: dict[str, Path],
    model: str,
    manifest: _Manifest,
    progress: Progress,
) -> Row:
    """One input. Its outputs are written to temporary files first, then recorded, and only then take their places, the
    labels last: whenever the process is killed, the next call finds either all of the result or none of it, and never
    takes a file of the user's for its own.
    """
    path, unchanged = options.source, manifest.unchanged(options.source.name, outputs)
    made_from = _made_from(path, options, model)
    for name, target in outputs.items():
        suffixes = None if name == "output" else map_suffixes()
        check_output(target, path, options.overwrite or unchanged[name], suffixes)
    with ExitStack() as stack:  # which ends in reverse order
        stack.enter_context(as_private_as(path))
        temporary = {name: stack.enter_context(whole_file(target)) for name, target in outputs.items()}
        files: dict[str, Any] = {name: str(place) for name, place in temporary.items()}
        try:
            result = segment(session, replace(options, overwrite=True, **files), progress)
        except OSError as error:  # of the input, not of an output
            raise foreseen(error) or error from None
        result = {"input": path.name, **result, "output": str(outputs["output"])}
        manifest.record(path.name, made_from, temporary, result)
    return {**result, "status": "done"}


def _output_folders(options: SegmentOptions) -> dict[str, Path]:
    """The folder for the labels ("output") and those for the maps, made if need be and swept."""
    folders = {"output": ensure_folder(Path(options.output) if options.output else _beside(options.source))}
    if folders["output"].resolve() == options.source.resolve():
        raise BadInput(f"{folders['output']} is the input itself", "give another folder with -o")
    folders |= {name: ensure_folder(path) for name, path in options.maps.items()}
    if len({folder.resolve() for folder in folders.values()}) < len(folders):
        raise BadInput("two outputs go to the same folder", "give each its own")
    for folder in folders.values():
        sweep_partials(folder)
    return folders


def _beside(source: Path) -> Path:
    return source.resolve().with_name(f"{source.resolve().name}{OUTPUT_TAG}")


def _output_names(inputs: list[Path]) -> dict[Path, str]:
    """NAME_bones.nii.gz; where two inputs differ in their format alone, the format is part of the name."""
    count = Counter(case_name(path).casefold() for path in inputs)
    return {
        path: f"{case_name(path) if count[case_name(path).casefold()] == 1 else path.name.replace('.', '-')}"
        f"{OUTPUT_TAG}.nii.gz"
        for path in inputs
    }


def _state(path: Path) -> list[int] | None:
    """Changes when a file does, but not when it is renamed."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _summary_csv(rows: list[Row], bones: list[str]) -> str:
    """A line a file: what became of it, the volume of each bone in ml, the warnings' codes, the error."""
    bones, text = list(dict.fromkeys(bones)), io.StringIO(newline="")
    plain = ("input", "status", "joint", "domain", "side", "device", "precision", "seconds")
    table: list[list[object]] = [[*plain, *(f"{bone}_ml" for bone in bones), "warnings", "error"]]
    for row in rows:
        volumes, error = row.get("bones", {}), row.get("error")
        table.append([
            *map(row.get, plain),
            *(volumes.get(bone, {}).get("volume_ml") for bone in bones),
            " ".join(notice["code"] for notice in row.get("warnings", ())),
            error and f"{error['kind']}: {error['message']}",
        ])  # fmt: skip
    write_rows(text, table)
    return text.getvalue()
