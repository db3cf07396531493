"""Keeps the model of the last request loaded, so that the next request need not wait for it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..models import store

if TYPE_CHECKING:
    from ..api import Model


class Session:
    """One model at a time, on its device."""

    def __init__(self) -> None:
        self._key: tuple[Path, int, int, int, str] | None = None
        self._model: Model | None = None

    def model(self, name: str | None, device: str) -> "Model":
        """The model by name or path. It is loaded again if its file has changed, or for another device."""
        from ..api import load
        from ..inference.devices import use_most_cores

        use_most_cores()
        path = store.resolve(name)
        stat = path.stat()
        key = (path.resolve(), stat.st_mtime_ns, stat.st_size, stat.st_ino, device)
        if self._model is None or self._key != key:
            self.release()  # before the next one is loaded: there may not be memory for two
            self._key, self._model = key, load(path, device=device)
        return self._model

    def release(self) -> None:
        """Frees the model and the device's memory."""
        self._key = self._model = None
        if torch := sys.modules.get("torch"):  # if it was never imported there is nothing to free
            torch.cuda.empty_cache()
