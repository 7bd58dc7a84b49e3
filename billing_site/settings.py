"""Settings, all from the environment."""
