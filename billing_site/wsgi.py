"""The web server's entry."""
