"""What can go wrong in the tools and nowhere else. What can go wrong in the service too is in `consumer.errors`."""

from __future__ import annotations

from consumer.errors import WhisperXError


class WrongUsage(WhisperXError):
    """The command line asks for something that makes no sense."""

    code = "USAGE"


class NotFound(WhisperXError):
    """The job, file or record that was asked for is not there."""

    code = "NOT_FOUND"


class DamagedResult(WhisperXError):
    """The bytes in the store are not those that the manifest promises."""

    code = "RESULT_DAMAGED"


class ChangedFile(WhisperXError):
    """The file was written to while it was uploaded."""

    code = "FILE_CHANGED"


class Overtaken(WhisperXError):
    """Somebody else has begun the same work, and goes on with it."""

    code = "OVERTAKEN"
