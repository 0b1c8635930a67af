"""`python -m consumer` is `whisperx-consumer`."""

import sys

from consumer.interrupts import ending_at_once


def main() -> int:
    """Load the program and run it."""
    with ending_at_once():
        from consumer import cli
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
