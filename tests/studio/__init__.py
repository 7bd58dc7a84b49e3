"""The pricing studio, page by page."""
