"""Win rates: which of two responses to a prompt is better, and how far to believe the judge.

A pair of responses goes to a judge, in both orders, and comes back as one row of a *table of
verdicts*. A table becomes win rates with intervals, and is checked against labels.

Start with `report`: it judges pairs by reward, sums up a table from any judge, and measures how far
the judge can be believed. Then read in this order:

- `pairs`: pairs of responses from files, with or without human labels.
- `protocol`: what a judge is asked, how its reply is read, and the columns of the table.
- `llm_judge`: a language model behind an OpenAI-compatible endpoint as the judge.
- `store`: the file that keeps its replies, so that they are paid for once.
- `win_rates`: the statistics, from preferences alone.
- `paper_table`: the paper's Table 1, and ours in the same form.
- `smollm2_judge`: a small local model as the judge, to show how poor a judge can be.
"""
