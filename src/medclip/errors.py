"""The two ways a command ends early; `medclip.cli.main` turns each into one sentence and an exit code."""


class UserError(Exception):
    """What was asked for cannot be done as asked (exit code 2). The message names the remedy."""


class WorkError(Exception):
    """The request was right and the work failed on the way (exit code 1)."""
