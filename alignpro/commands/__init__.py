"""The command line, one function per command.

Start with `main`: it builds the parser and calls the function of the command. `init`, `train` and
`use` are for a model of your own, and `proxy` is the server of `alignpro serve`.
"""
