"""What a run leaves on disk and tells its caller: checkpoints, log, curve, events, pictures."""
