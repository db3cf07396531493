"""A file format each; every module here is imported when formats are first asked for."""
