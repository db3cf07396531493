"""Models on disk: the file and its manifest, and the store where they are installed, listed and removed."""
