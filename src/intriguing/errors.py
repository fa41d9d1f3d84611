"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user gave cannot be used: a file, a folder or a setting.

    The message is one line that says what was wrong and what would be right. The doors (train.py, attack.py,
    analyze.py) print it without a traceback and exit with status 1; a program that imports the package may catch it.
    """
