"""What the stages remember."""
