"""What makes training and sampling quick. You can read the rest of the project without it.

Start with `logprobs`: log-probabilities of sampled completions with as little work as their batch
allows. `linears` holds linear layers in the number formats that a CPU multiplies fastest, and
`cache` the sampler's key-value cache.
"""
