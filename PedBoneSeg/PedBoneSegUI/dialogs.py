"""What the sections have in common of Qt: clicks, tables, the clipboard, the choice of files."""

from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _


def connectClicked(button, function: Callable[[], None]) -> None:
    button.clicked.connect(function)


def fillTable(table, columns: list[str], rows: list[list[str]]) -> None:
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(columns)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        for column, text in enumerate(cells):
            table.setItem(row, column, qt.QTableWidgetItem(text))


def copyText(text: str) -> None:
    slicer.app.clipboard().setText(text)


def askFolder(title: str) -> Path | None:
    chosen = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
    return Path(chosen) if chosen else None


def askOpenFile(title: str, kinds: str) -> Path | None:
    chosen = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds)
    return Path(chosen) if chosen else None


def askSaveFile(title: str, proposal: str, kinds: str) -> Path | None:
    chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposal, kinds)
    return Path(chosen) if chosen else None


def shortError(error: Exception) -> str:
    """A foreseeable error in one line; a file system's error by its own words."""
    return str(getattr(error, "strerror", None) or error) or _("unknown reason")
