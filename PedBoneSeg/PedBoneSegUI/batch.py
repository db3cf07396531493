"""A folder in, a folder out, through the same warm worker; goes on where it stopped.

Next to the results lies `pedboneseg_batch.json`: what each was made from and with, so that a second run skips what is
done. One bad file does not stop the rest.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import qt
from slicer.i18n import tr as _

from PedBoneSegLib.files import sweep_partials, whole_file

from . import answers
from .workerclient import nothing

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
RECORD = "pedboneseg_batch.json"
TURN_ENTRIES = 200  # folder entries looked at per turn of the event loop


@dataclass
class Item:
    """One input. `state` is waiting, running, done, skipped, failed or cancelled."""

    source: Path
    name: str
    state: str = "waiting"
    note: str = ""
    result: Path | None = None
    answer: dict = field(default_factory=dict)


def findInputs(folder: Path, output: Path) -> Iterator[Path | None]:
    """Volumes and DICOM folders below `folder`, in order of their names; None now and then, to let others work."""
    for current, folders, files in os.walk(folder):
        here = Path(current)
        if here == output:
            folders.clear()
            continue
        folders.sort()
        others = []
        for count, name in enumerate(sorted(files)):
            if name.startswith("."):
                continue
            if name.lower().endswith(ENDINGS):
                yield here / name
            elif len(others) < 3:
                others.append(here / name)
            if count % TURN_ENTRIES == TURN_ENTRIES - 1:
                yield None
        if any(isDicom(path) for path in others):
            yield here
        yield None


def isDicom(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            stream.seek(128)
            return stream.read(4) == b"DICM"
    except OSError:
        return False


class Batch:
    """`onChange(position)` follows every change of `items[position]`; `onEnd(sentence)` comes once, at the end."""

    def __init__(
        self, client, source: Path, output: Path, options: dict, onChange: Callable = nothing, onEnd: Callable = nothing
    ) -> None:
        self.items: list[Item] = []
        self._client, self._source, self._output, self._options = client, Path(source), Path(output), options
        self._onChange, self._onEnd = onChange, onEnd
        self._inputs = findInputs(self._source, self._output)
        self._request, self._running = None, True
        self._record: dict = {}

    def start(self) -> None:
        """Raises OSError if the output folder cannot be made."""
        self._output.mkdir(parents=True, exist_ok=True)
        sweep_partials(self._output)
        try:
            self._record = json.loads((self._output / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: everything is done anew
            self._record = {}
        qt.QTimer.singleShot(0, self._look)

    @property
    def model(self) -> str:
        return self._options.get("model", "")

    def cancel(self) -> None:
        if not self._running:
            return
        self._running = False
        if self._request is not None:
            self._client.cancel(self._request)
        else:
            qt.QTimer.singleShot(0, self._end)

    def _look(self) -> None:
        if not self._running:
            return
        try:
            path = next(self._inputs)
        except StopIteration:
            self._next(0)
            return
        if path is not None:
            name = str(path.relative_to(self._source)) if path != self._source else path.name
            self.items.append(Item(path, name))
            self._onChange(len(self.items) - 1)
        qt.QTimer.singleShot(0, self._look)

    def _next(self, position: int) -> None:
        if not self._running or position >= len(self.items):
            self._running = False
            self._end()
            return
        item = self.items[position]
        item.result = self._output / f"{_stem(item.name)}_bones.nii.gz"
        done = self._record.get(item.name, {})
        if done.get("made_from") == self._made(item) and item.result.exists():
            item.state, item.answer = "skipped", done.get("answer", {})
            item.note = answers.summary(item.answer)
            self._onChange(position)
            qt.QTimer.singleShot(0, lambda: self._next(position + 1))
            return
        item.state = "running"
        self._client.log.hide(item.source.name, _stem(item.source.name), item.name)
        self._onChange(position)
        fields = {"input": str(item.source), "output": str(item.result), "overwrite": True, **self._options}
        self._request = self._client.send(
            "segment",
            fields,
            onDone=lambda answer: self._onDone(position, answer),
            onError=lambda kind, message, answer: self._onError(position, kind, message, answer),
        )

    def _onDone(self, position: int, answer: dict) -> None:
        item = self.items[position]
        item.state, item.answer = "done", answer
        warning = answers.warningOf(answer)
        item.note = answers.summary(answer) + (f" · {warning.text}" if warning else "")
        kept = {key: value for key, value in answer.items() if key not in ("id", "event", "output")}
        self._record[item.name] = {"made_from": self._made(item), "answer": kept}
        try:
            with whole_file(self._output / RECORD) as temporary:
                temporary.write_text(json.dumps(self._record, indent=1, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            item.note = _("The list of what is done could not be written ({reason}).").format(reason=error.strerror)
        self._request = None
        self._onChange(position)
        self._next(position + 1)

    def _onError(self, position: int, kind: str, message: str, answer: dict) -> None:
        item, self._request = self.items[position], None
        item.state = "cancelled" if kind == "cancelled" else "failed"
        item.note = answers.refusalOf(kind, message, answer).text
        self._onChange(position)
        self._next(position + 1)

    def _made(self, item: Item) -> dict:
        """What a result depends on: the input's size and time, and the options."""
        paths = sorted(item.source.iterdir()) if item.source.is_dir() else [item.source]
        stats = [path.stat() for path in paths if path.is_file()]
        return {
            "bytes": sum(stat.st_size for stat in stats),
            "changed": round(max((stat.st_mtime for stat in stats), default=0.0), 3),
            "options": self._options,
        }

    def _end(self) -> None:
        states = [item.state for item in self.items]
        parts = [(_("{n} done"), "done"), (_("{n} done before"), "skipped"), (_("{n} failed"), "failed")]
        text = ", ".join(words.format(n=states.count(state)) for words, state in parts if state in states)
        left = states.count("waiting") + states.count("cancelled")
        text += ("; " if text and left else "") + (_("{n} left").format(n=left) if left else "")
        self._onEnd(text or _("There is no volume in that folder."))


def _stem(name: str) -> str:
    name = re.sub(r"(\.nii)?\.gz$|\.[A-Za-z]{3,4}$", "", name)
    return re.sub(r"[\\/]+", "_", name)
