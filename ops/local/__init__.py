"""The services and roles as processes of this machine."""
