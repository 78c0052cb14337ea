"""Answers that need no model: the exact cache."""
