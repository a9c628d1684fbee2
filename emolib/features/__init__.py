"""What can be measured on voice, picture and words without any learned weights, and the cache."""
