"""A folder of inputs: one model, loaded once; one bad file does not stop the rest; a second call goes on where the
first one was interrupted.

The output folder holds the results, a manifest (which input, model and options each of them was made from) and
`summary.csv`. Whatever stands in them is an input's file name, which is the user's own, or a result; nothing is copied
from an image's header.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import BadInput, Cancelled, PedBoneSegError
from ..files import sweep_partials, write_text
from ..formats.names import OUTPUT_TAG
from ..formats.reading import find_inputs
from ..progress import Progress, no_progress
from .logbook import log_bug
from .protocol import EXIT_CODES, failure
from .verbs import SegmentOptions, Session, case_name, input_identity, made_folder

MANIFEST = "pedboneseg-batch.json"
SUMMARY = "summary.csv"
MANIFEST_SCHEMA = 1


def segment_folder(
    session: Session, options: SegmentOptions, progress: Progress = no_progress, given_up: Collection[str] = ()
) -> Iterator[dict]:
    """Segments every volume in the folder `options.input`.

    Yields each file's `segment` object as soon as it is there, with `input` and `status` (done, skipped, failed) added,
    and last one with `summary`, whose `exit_code` is the highest of the files'. Inputs named in `given_up` ended the
    whole process in an earlier call and count as failed. What concerns all files alike (no model, no such joint, no
    such device, a place that cannot be written to) is raised before the first one.
    """
    source = options.source
    inputs = find_inputs(source)
    if not inputs:
        raise BadInput(f"{source} holds no volume", "name a file, a DICOM folder, or a folder of volumes")
    if options.series is not None:
        raise BadInput("--series names one series", "leave it out for a folder of volumes")
    model = session.predictor(options.model, options.device).bundle.manifest
    from ..inference.predictor import candidates  # loaded by now, see `Session.predictor`

    candidates(model, options.joint)  # raises for all files at once
    beside = source.resolve().with_name(f"{source.resolve().name}{OUTPUT_TAG}")
    folder = made_folder(Path(options.output) if options.output else beside)
    if folder.resolve() == source.resolve():
        raise BadInput(f"{folder} is the input itself", "give another folder with -o")
    maps = {name: made_folder(path) for name, path in options.maps.items()}
    if len({folder.resolve(), *(path.resolve() for path in maps.values())}) <= len(maps):
        raise BadInput("two outputs go to the same folder", "give each its own")
    sweep_partials(folder)
    entries, names, rows, worst = _read_manifest(folder / MANIFEST), _output_names(inputs), [], 0
    for number, path in enumerate(inputs):
        target, before = folder / names[path], entries.get(path.name)
        ours = before is not None and before["output"] == _state(target)  # unchanged since we wrote it
        made_from = {"input": input_identity(path), "model": model.sha256, "options": options.identity()}
        one = replace(
            options,
            input=str(path),
            output=str(target),
            overwrite=options.overwrite or ours,
            **{name: str(place / names[path]) for name, place in maps.items()},
        )

        def step(fraction: float, stage: str, number: int = number, name: str = path.name) -> None:
            progress((number + fraction) / len(inputs), f"{name}: {stage}")

        try:
            step(0.0, "preparing")
            if ours and before["made_from"] == made_from:
                row = {**before["result"], "status": "skipped"}
            elif path.name in given_up:
                raise PedBoneSegError(f"{path.name} ended the program that worked on it", "crop it, or take it out")
            else:
                result = {"input": path.name, **session.segment(one, step)}
                row = {**result, "status": "done"}
                entries[path.name] = {"made_from": made_from, "output": _state(target), "result": result}
                write_text(folder / MANIFEST, json.dumps({"schema": MANIFEST_SCHEMA, "files": entries}, indent=1))
        except Cancelled:
            raise Cancelled(f"cancelled after {number} of {len(inputs)} files", "call again to go on") from None
        except Exception as error:
            if not isinstance(error, PedBoneSegError):
                log_bug("batch", error)
            row = {"input": path.name, "status": "failed", "error": failure(error)}
            worst = max(worst, EXIT_CODES[row["error"]["kind"]])
        rows.append(row)
        yield row
    write_text(folder / SUMMARY, _summary_csv(rows, [bone for card in model.domains for bone in card.table.names]))
    counts = Counter(row["status"] for row in rows)
    yield {"summary": {
        "files": len(rows), **{status: counts[status] for status in ("done", "skipped", "failed")},
        "folder": str(folder), "csv": str(folder / SUMMARY), "exit_code": worst,
    }}  # fmt: skip


def _output_names(inputs: list[Path]) -> dict[Path, str]:
    """NAME_bones.nii.gz; where two inputs differ in their format alone, the format is part of the name."""
    count = Counter(case_name(path).casefold() for path in inputs)
    return {
        path: f"{case_name(path) if count[case_name(path).casefold()] == 1 else path.name.replace('.', '-')}"
        f"{OUTPUT_TAG}.nii.gz"
        for path in inputs
    }


def _state(path: Path) -> list | None:
    """Changes when a file does."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def _read_manifest(path: Path) -> dict:
    """The entries of an earlier call by input name; none where there was none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != MANIFEST_SCHEMA:
            raise ValueError(f"schema {document['schema']}")
        for entry in document["files"].values():
            entry["made_from"], entry["output"], entry["result"]["input"]
        return document["files"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is not readable ({error})", "delete it to start anew") from None


def _summary_csv(rows: list[dict], bones: list[str]) -> str:
    """A line a file: what became of it, the volume of each bone in ml, the warnings' codes, the error."""
    bones, text = list(dict.fromkeys(bones)), io.StringIO(newline="")
    plain = ("input", "status", "joint", "domain", "side", "device", "precision", "seconds")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*plain, *(f"{bone}_ml" for bone in bones), "warnings", "error"])
    for row in rows:
        volumes, error = row.get("bones", {}), row.get("error")
        writer.writerow([
            *map(row.get, plain),
            *(volumes.get(bone, {}).get("volume_ml") for bone in bones),
            " ".join(notice["code"] for notice in row.get("warnings", ())),
            error and f"{error['kind']}: {error['message']}",
        ])  # fmt: skip
    return text.getvalue()
