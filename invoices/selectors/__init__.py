"""The readers of this app's rows."""
