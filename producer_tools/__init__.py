"""What senders and readers use: `whisperx-jobs submit, watch, result, cancel, dead-letters`."""
