"""What happened, exactly: the recorder, the segments on disk, their index and queries."""
