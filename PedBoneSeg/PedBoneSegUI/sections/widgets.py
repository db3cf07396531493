"""Small helpers for Qt's widgets and dialogs."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from PedBoneSegLib.errors import BadInput


def enable(condition, *widgets) -> None:
    for widget in widgets:
        widget.setEnabled(bool(condition))


def fillRow(table, row: int, cells: list[str]) -> None:
    """Each cell shows its whole text as a tool tip, too."""
    for column, text in enumerate(cells):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(text)
        table.setItem(row, column, item)


def fillTable(table, columns: list[str], rows: list[list[str]], wide: int = 0) -> None:
    """The column `wide` takes the room that the others leave; its text is wrapped."""
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(columns)
    for column in range(len(columns)):
        mode = qt.QHeaderView.Stretch if column == wide else qt.QHeaderView.ResizeToContents
        table.horizontalHeader().setSectionResizeMode(column, mode)
    table.verticalHeader().hide()
    table.verticalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    table.setRowCount(len(rows))
    for row, cells in enumerate(rows):
        fillRow(table, row, cells)


def copyText(text: str) -> None:
    slicer.app.clipboard().setText(text)


def askFolder(title: str) -> Path | None:
    return _chosen(qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title))


def askOpenFile(title: str, kinds: str) -> Path | None:
    return _chosen(qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), title, "", kinds))


def askSaveFile(title: str, proposal: str, kinds: str, endings: tuple[str, ...]) -> Path | None:
    """The chosen path; without one of the endings it gets the first one.

    Raises BadInput if such a file exists: the dialog asked about the name without the ending.
    """
    path = _chosen(qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, proposal, kinds))
    if path is None or path.name.lower().endswith(endings):
        return path
    path = path.with_name(path.name + endings[0])
    if path.exists():
        raise BadInput(_("{name} exists already").format(name=path.name), _("choose it to replace it"))
    return path


def _chosen(path: str) -> Path | None:
    return Path(path) if path else None
