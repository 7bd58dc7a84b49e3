"""WHAT WAS USED: how much was used, and how much of it is beyond what is included."""
