"""Memory and time of a preset on a GPU, without downloading a single weight.

`plan` computes them from the models' configs; start there. `step_costs` works out one stage of a
PPO step at a time, by running the project's own code on PyTorch's meta device (`meta_device`).
`architectures.yaml` holds the published shapes of the paper's models.

`rehearsal` measures them: it runs the stages themselves with random weights (`random_models`) and
reads the allocator (`memory_meter`).
"""
