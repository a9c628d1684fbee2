"""Walk a profile on stand-ins of its models and data: everything but the real weights' answers."""
