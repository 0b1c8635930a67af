"""The chaos run: the real system on real servers, under faults, with only the speech engine replaced. See README.md."""
