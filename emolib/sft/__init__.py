"""AffectGPT's training stage (S5) and its predictions (S5 and S6), for notebook 04."""
