"""What the sections of the panel have in common: the line in which they speak, failures, dialogs, tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qt
import slicer

from PedBoneSegLib.errors import PedBoneSegError


class Section:
    """`line` is the label that tells the user what became of a click."""

    def __init__(self, panel, line) -> None:
        self.panel, self.ui, self.logic, self._line = panel, panel.ui, panel.logic, line

    def follow(self) -> None:
        """Brings the widgets in line with the user's choices, the scene, and what is running."""

    def say(self, text: str) -> None:
        self._line.setText(text)

    @contextmanager
    def telling(self, sentence: str) -> Iterator[None]:
        """A foreseeable failure in the block is told by `sentence`, with its {reason}; a bug goes on."""
        try:
            yield
        except (PedBoneSegError, OSError, RuntimeError) as error:
            self.say(sentence.format(reason=getattr(error, "strerror", None) or error))


def enable(condition, *widgets) -> None:
    for widget in widgets:
        widget.setEnabled(bool(condition))


def fillRow(table, row: int, cells: list[str]) -> None:
    for column, text in enumerate(cells):
        table.setItem(row, column, qt.QTableWidgetItem(text))


def fillTable(table, columns: list[str], rows: list[list[str]]) -> None:
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(columns)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        fillRow(table, row, cells)


def copyText(text: str) -> None:
    slicer.app.clipboard().setText(text)


def askFolder(title: str) -> Path | None:
    return _chosen(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title))


def askOpenFile(title: str, kinds: str) -> Path | None:
    return _chosen(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds))


def askSaveFile(title: str, proposal: str, kinds: str) -> Path | None:
    return _chosen(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposal, kinds))


def _chosen(path: str) -> Path | None:
    return Path(path) if path else None
