"""How dates are written on staff pages."""
