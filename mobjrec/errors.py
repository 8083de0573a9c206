"""The mistakes that are the user's or the machine's, each with the exit code that the command line gives it."""


class UserError(Exception):
    """Bad input or config: the message names what, where, what was expected and what to do. Exit code 2."""

    code = 2


class RunFolderError(UserError):
    """A run folder that is damaged, locked or not ours. Exit code 3."""

    code = 3


class NumericError(UserError):
    """A loss or gradient that is not finite, or memory that ran out. Exit code 4."""

    code = 4


class PeerError(UserError):
    """A process or machine that does not answer. Exit code 5."""

    code = 5
