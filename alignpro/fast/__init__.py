"""What makes training and sampling quick: log-probabilities, fast linear layers, the cache."""
