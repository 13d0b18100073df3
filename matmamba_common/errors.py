"""The base of all errors that a user can cause: what the three packages stand on together."""


class MatMambaError(ValueError):
    """Bad input, or a refusal of the system; the message names the culprit and what would be allowed.

    Whatever else is raised is a fault of the program, or of the code that calls it (`TypeError`).
    """


class ConfigError(MatMambaError):
    """A setting that is unknown, of the wrong type, or cannot work; the message names it, and its file."""
