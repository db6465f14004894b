"""What the paper's models need of a GPU, computed without their weights."""
