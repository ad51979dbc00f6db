"""Speed and memory, each as a ratio against a peer or a limit of the same run: ``python -m ops.bench``."""
