"""`python -m consumer` is `whisperx-consumer`."""

import sys

from consumer.cli import main

sys.exit(main())
