"""Shapes only: what travels in the API dialects, and what we count (usage, money)."""
