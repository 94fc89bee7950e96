"""How the two networks are trained."""
