"""Open-vocabulary emotion recognition from video: the MER2024-OV method as a library.

Importing this package is cheap: it loads neither torch, cv2 nor swift. Import the
module you need, for example ``from emolib import scoring``.
"""

__version__ = "0.2.0.dev0"
