"""The command line: a module a verb, which reads arguments and calls one function. jax is imported by that function
only, since it takes seconds that neither `--help` nor a mistake in the arguments should cost.
"""
