"""Synthetic joints: anatomy, and how MR would show it."""
