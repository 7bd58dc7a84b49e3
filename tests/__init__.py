"""Tests through public doors, on real servers."""
