"""Test material drawn by code: pages of digits with known truth, and what shows no digit."""
