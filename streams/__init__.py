"""The journey: intake, dispatch, delay, with their pure rules, ports and adapters."""
