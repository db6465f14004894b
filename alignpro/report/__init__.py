"""What is in `results/`: the kept runs, the scoreboard and its claims, cost, benchmark, tables."""
