"""What runs the gateway, and what stands around it."""
