"""Cross-validation: a configuration trained once a fold, every exam scored by the network that has not seen it.

`folds` decides who is held out where, `fold` trains and scores one of them, `executors` runs them (on this machine or
on a Slurm cluster), `tables` collects what they found, `command` is the verb.
"""
