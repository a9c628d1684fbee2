"""One module a command of ``emolib``; each has ``add_parser`` and ``run``."""
