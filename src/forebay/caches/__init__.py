"""Answers that need no model: the exact cache now; semantic and coalescing stand beside it."""
