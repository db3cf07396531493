"""The training library's verbs on the command line."""
