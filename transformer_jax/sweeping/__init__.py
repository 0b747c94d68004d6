"""Many runs of one experiment, a point of a grid each, in one folder."""
