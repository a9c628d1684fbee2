"""One interface over in-process models and model servers: ``open_engine(params)``."""
