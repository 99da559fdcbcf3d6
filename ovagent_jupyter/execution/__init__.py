"""Running code somewhere: executors, the policy between them, and the hand-over of data."""
