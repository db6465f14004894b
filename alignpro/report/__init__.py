"""What the book reports, computed from the files in `results/`. No model is loaded.

Start with `kept_runs`, which reads the runs. `scoreboard` gives a verdict on every claim of the
paper in `claims.yaml`: `theory_claims` checks the theory, `measured_claims` the experiment.
`answer` puts all on one screen. `rlhf_cost` compares RLHF with the prompter, `examples` chooses
answers to show, `benchmark` reads timings, and `html` shows what a model wrote without obeying it.
`formulas` shows tables of the theory with its symbols typeset.
"""
