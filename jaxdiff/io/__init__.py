"""What a run leaves on disk and on the screen: checkpoints, metrics, stamps, progress, reports."""
