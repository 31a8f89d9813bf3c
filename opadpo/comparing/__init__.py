"""Captions of several models side by side, what was found in them, and blind votes on which is better."""
