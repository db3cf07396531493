"""The studies behind the documents' tables, a command a table: `python -m PedBoneSegTraining.studies.NAME`.

    layers       which layer's features separate best
    detection    which joint, like anything seen: accuracy, false alarms, foreign images, rivals, real volumes
    calibration  expected calibration error, Brier score, likelihood; individual against joint training
    review       how many of the wrong voxels the first slices hold
    cost         what detection adds to the time of segmenting
    held_out     Dice of every bone on held-out exams, family by family
    few_shot     what a model is worth to data it has never seen, with 1 to 10 exams of them

Each writes NAME.json (every number, with the command, the seeds and the model's hash) and NAME.md (the tables) into
`-o FOLDER`, some a figure; `--document FILE.md` puts the tables between that file's marks as well.
"""
