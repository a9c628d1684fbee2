"""The nano AffectGPT: what it reads (texts), sees and hears (towers), and how it is made (make)."""
