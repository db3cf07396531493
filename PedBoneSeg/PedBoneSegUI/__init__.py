"""The panel's own package: small files with one subject each, their dependencies passed in.

Nothing here imports torch, and nothing waits: what takes time happens in the worker process.
"""

from .paths import makeImportable

makeImportable()
