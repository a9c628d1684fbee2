"""The discriminative six-class model (paper's S9, MER2024-SEMI family), without leaks."""
