"""A stand-in for the Slicer application: real MRML (slicer-core), real Qt (PySide6, offscreen), strict as PythonQt.

`install()` makes `qt`, `ctk` and the missing parts of `slicer` importable. An attribute that neither Qt's meta-object
nor the real bindings know fails. It shows what the module does in a host that follows the rules; it is not Slicer.
"""

from .application import Application, install

__all__ = ["Application", "install"]
