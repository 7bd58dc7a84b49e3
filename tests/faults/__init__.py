"""What must hold while processes die, caches vanish and requests race."""
