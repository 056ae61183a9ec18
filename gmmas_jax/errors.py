"""The one exception for a mistake that the user can mend, and the exit code of half a success."""

SOME_LEFT_OUT = 3
"""Exit code of a verb that did its work, but without the cases that cannot be used."""


class UserError(Exception):
    """A user's mistake, told in one message.

    The message names the file or field, what was found, what was expected and what to do. The
    command line prints it without a traceback and exits with code 2.
    """
