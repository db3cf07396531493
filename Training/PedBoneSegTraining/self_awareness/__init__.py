"""The studies behind docs/self-awareness.md, a command a table: `python -m PedBoneSegTraining.self_awareness.NAME`.

    layers       which layer's features separate best
    detection    which joint, like anything seen: accuracy, false alarms, foreign images, rivals, real volumes
    calibration  expected calibration error, Brier score, likelihood; individual against joint training
    review       how many of the wrong voxels the first slices hold
    cost         what detection adds to the time of segmenting

Each writes NAME.json (every number, with the command, the seeds and the model's hash) and NAME.md (the tables) into
`-o FOLDER`, some a figure; `--document FILE.md` puts the tables between that file's marks as well.
"""
