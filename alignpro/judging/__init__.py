"""Win rates between two files of responses: the judge, its protocol, its store, its report."""
