"""The training loop: the stages of a run, what each starts from, the steps, and the run's folder."""
