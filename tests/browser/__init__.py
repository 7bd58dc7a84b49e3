"""The product in a browser, as people use it. Run by `make test-browser`, which sees to it that there is a Chromium."""
