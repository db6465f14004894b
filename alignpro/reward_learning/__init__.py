"""A reward learned from labelled pairs (Eq. 1), and what happens if one optimises it.

Start with `preferences`, which labels or reads pairs, and `learn`, which fits a reward model to
them. `run_study` makes one experiment of these: pairs, reward models, and prompters trained on the
learned reward. `study` reads its results, and `held_out` measures how good the reward is.
"""
