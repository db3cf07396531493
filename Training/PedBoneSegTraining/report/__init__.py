"""The report of a study: cross-validated runs side by side, on one page that needs no network.

`collect` reads what the runs left, `figures` draws, `exams` makes the pictures that are stepped through slice by slice,
`page` puts all of it into one HTML file and CSVs, `command` is the verb.
"""
